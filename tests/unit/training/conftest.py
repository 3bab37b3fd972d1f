import pytest

from components.data.dataset import PreparedDataset
from components.settings.network import CausalTransformerSettings
from components.tasks.next_item import NextItem

SHAPE = CausalTransformerSettings(dim=16, blocks=1, heads=2, ffn_dim=16, max_length=8, dropout=0.1)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSTILL_THREADS", "1")


@pytest.fixture
def shape() -> CausalTransformerSettings:
    return SHAPE


@pytest.fixture
def task(prepared: PreparedDataset) -> NextItem:
    return NextItem(prepared, SHAPE.max_length)
