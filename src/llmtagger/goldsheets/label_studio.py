"""Gold as Label Studio's list of tasks, with a control named `tags` of the type choices.

Exports of both kinds are read: JSON (`data` and `annotations`) and JSON-MIN (one flat object).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

from llmtagger.catalog.products import Columns
from llmtagger.catalog.rows import Row, RowFault
from llmtagger.goldsheets.statement import Statement, as_product, as_state, as_tags
from llmtagger.marks import State, clean

CONTROL = "tags"


def write_tasks(statements: Iterable[Statement], handle: IO[bytes]) -> int:
    """Write a JSON array, a task a line; returns how many there were."""
    count = 0
    for said in statements:
        handle.write(b",\n" if count else b"[\n")
        handle.write(json.dumps(_task(said), ensure_ascii=False).encode())
        count += 1
    handle.write(b"\n]\n" if count else b"[]\n")
    return count


def _task(said: Statement) -> dict[str, Any]:
    product = said.product
    data: dict[str, Any] = {
        name: clean(getattr(product, name))
        for name in ("id", "title", "description", "brand", "category")
    }
    # JSON-MIN puts the task's number into `id`
    data |= {"product_id": data["id"], "state": said.state.value, "author": said.author}
    data["wrong"] = list(said.wrong)
    choices = {
        "from_name": CONTROL,
        "to_name": "title",
        "type": "choices",
        "value": {"choices": list(said.right)},
    }
    return {"data": data, "annotations": [{"result": [choices] if said.right else []}]}


def from_task(row: Row, columns: Columns) -> Statement | None:
    """What a task says, None where nobody has annotated it; `RowFault` if it is no task.

    What a person annotated in Label Studio is reviewed: these are all the tags. Of several
    annotations the newest counts. Predictions say nothing.
    """
    values = dict(row.values)
    if "data" in values and ("annotations" in values or "predictions" in values):
        annotation = _newest(values.get("annotations") or [])
        data = values["data"]
        if not isinstance(data, dict):
            raise RowFault("the task's data is not an object")
        if annotation is None:
            return None
        right, person = _annotated(annotation), annotation.get("completed_by")
        data = {name: value for name, value in data.items() if name != CONTROL}
    else:
        if values.get(CONTROL) is None:
            return None
        right, person = _choices(values.pop(CONTROL)), values.pop("annotator", None)
        data = {name: value for name, value in values.items() if name not in _ADDED}
    return _statement(data, right, _name(person), columns)


_ADDED = {"annotation_id", "created_at", "updated_at", "lead_time"}  # by JSON-MIN, beside the data


def _statement(
    data: dict[str, Any], right: tuple[str, ...], person: str, columns: Columns
) -> Statement:
    if "product_id" in data:
        data["id"] = data.pop("product_id")
    wrong, state, author = (data.pop(name, None) for name in ("wrong", "state", "author"))
    return Statement(
        product=as_product(data, columns),
        right=right,
        wrong=_choices(wrong or []),
        state=State.REVIEWED if person or not state else as_state(str(state)),
        author=person or clean(str(author or "")),
    )


def _newest(annotations: object) -> Mapping[str, Any] | None:
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise RowFault("the annotations are not a list of objects")
    kept = [each for each in annotations if not each.get("was_cancelled")]
    newest = sorted(kept, key=lambda each: str(each.get("updated_at") or ""))  # equal: as listed
    return newest[-1] if newest else None


def _annotated(annotation: Mapping[str, Any]) -> tuple[str, ...]:
    results = annotation.get("result") or []
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise RowFault("the annotation's result is not a list of objects")
    found: list[str] = []
    for each in results:
        if each.get("from_name") == CONTROL and each.get("type") == "choices":
            found += _choices(each.get("value"))
    return tuple(dict.fromkeys(found))


def _choices(value: object) -> tuple[str, ...]:
    """Tags as JSON-MIN may write them: one text, a list, or an object with the list."""
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise RowFault("the tags are not a list of choices")
    return as_tags(value)


def _name(person: object) -> str:
    """Who annotated: an e-mail address where the export names one, else the user's number."""
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return "" if person is None else clean(str(person))
