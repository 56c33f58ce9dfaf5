"""The library's dicts, and the messages that stand for them on the wire."""

from typing import Any

from cluster.raft.messages import Append, Appended, Install, Message, RequestVote, TimeoutNow, Vote

Dict = dict[str, Any]


def append_of(message: Dict) -> Append | None:
    """None if the library has lost track of what comes before; it asks the follower again."""
    if message["prevLogIdx"] is None:
        return None
    return Append(
        term=message["term"],
        commit=message["commit_index"],
        previous_index=message["prevLogIdx"],
        previous_term=message["prevLogTerm"],
        entries=message["entries"],
    )


def install_of(message: Dict) -> Install:
    piece = message.get("serialized")
    if piece is None:
        return Install(term=message["term"], data=None)
    data, first, last = piece
    return Install(term=message["term"], data=data, first=first, last=last)


def appended_of(message: Dict, term: int, next_index: int) -> Appended:
    return Appended(term=term, next_index=next_index, reset=message["reset"], success=message["success"])


def other_of(message: Dict) -> Message | None:
    """Votes and transfers. None for all that the library would send to forward commands: we do that."""
    match message["type"]:
        case "request_vote":
            return RequestVote(
                term=message["term"],
                last_index=message["last_log_index"],
                last_term=message["last_log_term"],
            )
        case "response_vote":
            return Vote(term=message["term"])
        case "timeout_now":
            return TimeoutNow(term=message["term"])
    return None


def entries_in(append: Append) -> Dict:
    return {
        "type": "append_entries",
        "term": append.term,
        "commit_index": append.commit,
        "entries": append.entries,
        "prevLogIdx": append.previous_index,
        "prevLogTerm": append.previous_term,
    }


def commit_in(term: int, commit: int) -> Dict:
    """A leader's sign of life that brings no entries; `commit` must lie in the verified part of the log."""
    return {"type": "append_entries", "term": term, "commit_index": commit}


def piece_in(install: Install) -> Dict:
    """The commit index is 0: the log here has not been compared with the leader's."""
    piece = (install.data, install.first, install.last)
    return {"type": "append_entries", "term": install.term, "commit_index": 0, "serialized": piece}


def acknowledgement(next_index: int, *, reset: bool, success: bool) -> Dict:
    return {"type": "next_node_idx", "next_node_idx": next_index, "reset": reset, "success": success}


def vote_wanted(request: RequestVote) -> Dict:
    return {
        "type": "request_vote",
        "term": request.term,
        "last_log_index": request.last_index,
        "last_log_term": request.last_term,
    }


def newer_term(term: int) -> Dict:
    """Makes the library a follower in `term` without voting: no log is older than this one."""
    return {"type": "request_vote", "term": term, "last_log_index": 0, "last_log_term": -1}


def vote_given(vote: Vote) -> Dict:
    return {"type": "response_vote", "term": vote.term}


def campaign_now(term: int) -> Dict:
    return {"type": "timeout_now", "term": term}
