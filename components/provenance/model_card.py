"""The model card of a package: what it is, what it is worth, where it comes from; for people and for the hub.

The front matter follows Hugging Face's model card metadata, https://huggingface.co/docs/hub/model-cards. ``base_model``
and ``datasets`` are names of the hub's form, made of content: the first twelve digits of a digest. No repository of the
hub has them, as the card says; the digests in full stand under ``recstill``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def model_card(record: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """Markdown with YAML front matter.

    Args:
        record: ``package.json`` without its list of files.
        source: ``source.json``.
    """
    about = source.get("about") or {}
    data = str(about.get("title") or source.get("kind") or "the scenario's source")
    wording, first = record["wording"], record["measures"][0]
    measures = {
        measure["key"]: measure["title"]
        for measure in record["measures"]
        if measure["group"] == first["group"] and not measure["percent"]
    }
    metrics, lineage, choice = record["metrics"], record["lineage"], record["choice"]
    front = {
        "license": "other",
        "license_name": "terms-of-the-training-data",
        "library_name": "onnx",
        **_names(str(record["name"]), lineage),
        "tags": [*wording["tags"], "knowledge-distillation", "onnx", "recstill"],
        "model-index": [
            {
                "name": f"{record['name']} {choice['chosen']}",
                "results": [
                    {
                        "task": {"type": record["task"], "name": wording["title"]},
                        "dataset": {"name": data, "type": str(source.get("kind", "table"))},
                        "metrics": [
                            {"type": name, "name": title, "value": metrics[name]} for name, title in measures.items()
                        ],
                    }
                ],
            }
        ],
        "recstill": {"version": record["recstill"], "lineage": dict(lineage)},
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {record['name']}: {choice['chosen']}",
        "",
        f"{wording['summary']}, distilled from a larger teacher, compressed and exported to ONNX by Recstill.",
        "",
        "## Use",
        "",
        "```sh",
        wording["use"],
        "```",
        "",
        "`signature.json` describes the model's inputs and outputs, `vocabulary.parquet` the outcomes, `golden.json` "
        "holds requests with the answers that they must get.",
        "",
        *_index(choice["variant"].get("index")),
        "## Quality and cost",
        "",
        f"On {record['test']['targets']:,} held-out points of {record['test']['users']:,} {wording['users']}, "
        f"{wording['tested']}:",
        "",
        "| | this model | teacher |",
        "|---|---|---|",
        *(f"| {title} | {metrics[name]:.4f} | {record['teacher'][name]:.4f} |" for name, title in measures.items()),
        f"| model file, bytes | {record['model_bytes']:,} | {record['teacher']['bytes']:,} |",
        f"| latency at batch 1, one thread, median ms | {metrics['p50_ms']:.3f} | {record['teacher']['p50_ms']:.3f} |",
        "",
        f"{100 * metrics['retention']:.1f} % of the teacher's {first['title']} is kept (95 % interval "
        f"{100 * metrics['retention_low']:.1f} to {100 * metrics['retention_high']:.1f} %, paired bootstrap over "
        f"{wording['users']}). The variant was chosen on these same points, so that new ones may show a little less.",
        "",
        "## Limits",
        "",
        wording["limits"],
        "",
        "## Data",
        "",
        f"{data}: {source.get('events', 0):,} events of {source.get('users', 0):,} users, "
        f"{source.get('first_event', '?')} to {source.get('last_event', '?')}.",
        "",
        *(f"{title}: {about[key]}\n" for key, title in _ABOUT.items() if about.get(key)),
        "A model learns from its data: their terms apply to it.",
        "",
        "## Lineage",
        "",
        *_about_names(str(record["name"]), lineage),
        *(f"- {name.replace('_', ' ')}: `{value}`" for name, value in lineage.items()),
        "",
    ]
    return "\n".join(lines)


def _index(index: Mapping[str, Any] | None) -> list[str]:
    if not index:
        return []
    return [
        f"`model.onnx` gives a vector, and the items of greatest inner product with it are found in `model.faiss`, an "
        f"index of faiss ({index['kind']}): {100 * index['recall']:.1f} % of the {index['recall_of']} best on "
        f"{index['histories']:,} validation histories, against an exact search.",
        "",
    ]


def _names(name: str, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub draws its tree of models from."""
    names: dict[str, Any] = {}
    if teacher := content_name(name, "teacher", lineage):
        names.update(base_model=teacher, base_model_relation="quantized")
    if dataset := content_name(name, "dataset", lineage):
        names["datasets"] = [dataset]
    return names


def _about_names(name: str, lineage: Mapping[str, Any]) -> list[str]:
    names = [content_name(name, kind, lineage) for kind in ("teacher", "dataset")]
    if not any(names):
        return []
    shown = " and ".join(f"`{one}`" for one in names if one)
    return [
        f"{shown}: names made of content, the first {_SHOWN} digits of the digests below. They are no repositories of "
        "a hub; whoever has the bytes can compute them.",
        "",
    ]


def content_name(name: str, kind: str, lineage: Mapping[str, Any]) -> str:
    """The name of a teacher or data set by its content, such as ``recstill/movielens-teacher-595594e955bc``.

    Args:
        name: Scenario.
        kind: ``teacher`` or ``dataset``.
        lineage: Digests by kind; without that kind the name is empty.
    """
    digest = str(lineage.get(kind) or "")
    return f"recstill/{name}-{kind}-{digest[:_SHOWN]}" if digest else ""


_SHOWN = 12
_ABOUT = {"home": "Home", "licence": "Terms", "citation": "Cite"}
