"""Says as JSON what the page shows: the actions with their clips, what was answered, and what all of it is worth."""

from typing import Any

from runs.own.calibration import better_than_guessing, leave_one_out_words, percent, threshold_words
from runs.own.page.files import ActionPlace, ClipPlace
from runs.own.page.jobs import Jobs
from runs.own.page.queries import Query
from runs.own.results import Answer, Check


def sentence(check: Check | None, actions: int, problem: str | None) -> dict[str, str]:
    """Return the one sentence of state, its kind (good, bad, none: nothing can be said), and more words of it."""
    if problem is not None:
        return {"kind": "bad", "text": "These clips cannot be used as they are.", "more": problem}
    if check is None:
        text = ("Add an action, then show it a few times." if not actions else
                "Show each action a few times: three clips are a start, five are good.")
        return {"kind": "none", "text": text, "more": ""}
    ways, right, total = len(check.actions), check.right, check.total
    more = f"{leave_one_out_words(right, total, ways)} {threshold_words(check.calibration, check.none_folder)}"
    if ways < 2 or not total:
        text = ("Add a second action to compare with." if ways < 2 else
                "Not checked yet: an action needs two clips before one of them can be held out.")
        return {"kind": "none", "text": text, "more": more}
    better = better_than_guessing(right, total, ways)
    worth = f"{'better' if better else 'no better'} than guessing ({percent(1 / ways)})".replace(" %", "\u00a0%")
    return {"kind": "good" if better else "bad", "more": more,
            "text": f"{right} of {total} right when each clip is held out: {worth}."}


def _clip(jobs: Jobs, clip: ClipPlace, action: str) -> dict[str, Any]:
    """Return what a card shows of a clip; `right` is None where it was not held out."""
    look, check = jobs.look_of(clip.path), jobs.check
    got = check.held_out.get(clip.name) if check else None
    note = next((note.partition(": ")[2] for note in (check.warnings if check else ())
                 if note.startswith(f"{clip.name}: ")), None)
    shown = {"id": clip.id, "name": clip.path.name, "seconds": look and round(look.seconds, 1),
             "strip": f"strip/{clip.id}?{jobs.key_of(clip.path)[1]}" if look else None, "got": got,
             "right": None if got is None else got == action, "note": note, "playable": clip.path.is_file()}
    if clip.name in jobs.of_none:
        answer = jobs.of_none[clip.name]
        shown |= {"got": answer.answer or "unknown", "right": answer.unknown}
    return shown


def _action(jobs: Jobs, action: ActionPlace) -> dict[str, Any]:
    fact = next((one for one in jobs.check.actions if one.name == action.name), None) if jobs.check else None
    return {"id": action.id, "name": action.name, "clips": [_clip(jobs, clip, action.name) for clip in action.clips],
            "leave_one_out": [fact.right, fact.held_out] if fact and fact.held_out else None}


def _answer(answer: Answer) -> dict[str, Any]:
    """Return what stands in predictions.json, the actions in the order of nearness, and lengths of bars."""
    return answer.to_dict() | {"ranked": answer.ranked, "shares": dict(answer.shares), "counts": answer.counts}


def _query(query: Query) -> dict[str, Any]:
    return {"id": query.id, "name": query.name, "seconds": round(query.look.seconds, 2), "stale": query.stale,
            "answer": None if query.answer is None else _answer(query.answer)}


def state(jobs: Jobs, limits: dict[str, float]) -> dict[str, Any]:
    """Return everything that is shown."""
    version, check, busy = jobs.version, jobs.check, jobs.at_work()
    *own, none = jobs.folder.actions()
    typical = None if jobs.actions is None else round(jobs.actions.median_seconds, 1)
    threshold = None if check is None else threshold_words(check.calibration, check.none_folder)
    return {"version": version, "folder": jobs.folder.root.resolve().name, "model": jobs.model.name,
            "sentence": sentence(check, len(own), jobs.problem),
            "busy": None if busy is None else {"text": busy.text, "share": busy.share},
            "warnings": list(check.warnings) if check else [], "actions": [_action(jobs, one) for one in own],
            "none": _action(jobs, none), "typical": typical,
            "threshold": threshold, "queries": [_query(one) for one in reversed(jobs.queries)],
            "undo": jobs.folder.undoable, "ready": jobs.actions is not None, "limits": limits}
