"""``network`` of a teacher or student that reads the items of a user, in whatever order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.settings.base import Settings


class MatrixFactorizationSettings(Settings):
    """A row an item; a user's row is solved for from the items of the user (Hu, Koren and Volinsky 2008)."""

    kind: Literal["matrix_factorization"]
    """The architecture."""
    dim: int = Field(default=32, ge=4)
    """Width of a row."""
    steps: int = Field(default=8, ge=1)
    """Conjugate gradient steps that solve for a user's row."""
    max_length: int = Field(default=2048, ge=2)
    """Items of a user that the network sees: the newest ones."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on a user's row."""


class TwoTowerSettings(Settings):
    """A user is a function of the mean of the rows of the user's items (Covington, Adams and Sargin 2016)."""

    kind: Literal["two_tower"]
    """The architecture."""
    dim: int = Field(default=32, ge=4)
    """Width of a row."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    """Channels of each hidden layer of the users' tower."""
    tied: bool = True
    """Score items with the table that also tells what users took."""
    max_length: int = Field(default=2048, ge=2)
    """Items of a user that the network sees: the newest ones."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the mean of the rows and after each hidden layer."""


TopNNetworkSettings = MatrixFactorizationSettings | TwoTowerSettings
"""Any of them."""
