import threading

import pytest

from leyline_agent import Edit, Session, TrajectoryError, policy
from leyline_agent.wrapping.pool import MAX_SESSIONS, SessionPool

SYSTEM = {"role": "system", "content": "s"}


def user(text):
    return {"role": "user", "content": text}


def reply(text):
    return {"role": "assistant", "content": text}


@policy
def rewriting(trajectory):
    """Write the task anew, which policies may do only where they say so."""
    if trajectory.messages[1]["content"] == "a":
        yield Edit(1, 2, (user("b"),), may_edit={"task"})


@pytest.fixture
def made():
    return []


@pytest.fixture
def pool(made):
    def make():
        made.append(Session())
        return made[-1]

    return SessionPool(make)


def answer(pool, messages, text="ok"):
    pool.begin(messages).finish(text)
    return pool.last


def test_a_conversation_goes_on_in_its_session(pool, made):
    first = answer(pool, [SYSTEM, user("a")])
    assert answer(pool, [SYSTEM, user("a"), reply("ok"), user("more")]) is first
    assert len(made) == 1


def test_a_shared_system_prompt_does_not_make_it_one_conversation(pool, made):
    first = answer(pool, [SYSTEM, user("a")])
    second = answer(pool, [SYSTEM, user("b")])
    assert first is not second
    assert answer(pool, [SYSTEM, user("a"), reply("ok"), user("more")]) is first


def test_a_rewrite_behind_the_task_stays_in_its_session(pool, made):
    first = answer(pool, [SYSTEM, user("a")])
    assert answer(pool, [SYSTEM, user("a"), user("summary of it all")]) is first


def test_the_longest_shared_history_wins(pool, made):
    shared = [SYSTEM, user("a")]
    left, right = pool.begin(shared), pool.begin(shared)
    left.finish("left")
    right.finish("right")
    assert len(made) == 2
    assert answer(pool, [*shared, reply("left"), user("more")]) is made[0]
    assert answer(pool, [*shared, reply("right"), user("more")]) is made[1]


def test_a_failed_first_call_leaves_its_session_to_its_retry(pool, made):
    pool.begin([SYSTEM, user("a")]).fail("no answer")
    other = answer(pool, [SYSTEM, user("b")])
    retried = answer(pool, [SYSTEM, user("a")])
    assert made == [retried, other]
    assert [session.stats().failed for session in made] == [1, 0]


def test_a_session_whose_first_turn_is_being_begun_is_nobody_elses():
    """Its policies still run, so it has no turn yet; another thread's conversation is not its."""
    runs, goes_on = threading.Event(), threading.Event()

    @policy
    def slow(trajectory):
        """Wait, in the first conversation."""
        if trajectory.messages[-1]["content"] == "a":
            runs.set()
            assert goes_on.wait(10)
        yield from ()

    pool = SessionPool(lambda: Session(slow))
    first = threading.Thread(target=lambda: pool.begin([user("a")]).finish("ok"))
    first.start()
    assert runs.wait(10)
    other = pool._find([user("b")], 1, "b")
    goes_on.set()
    first.join()
    assert other.version == 0
    assert len(pool.sessions) == 1


def test_without_a_user_message_all_must_be_shared(pool, made):
    answer(pool, [SYSTEM])
    answer(pool, [SYSTEM, reply("ok"), SYSTEM])
    assert len(made) == 2


def test_the_one_unused_longest_is_forgotten(pool, made):
    for number in range(MAX_SESSIONS + 1):
        answer(pool, [user(str(number))])
    answer(pool, [user("1"), reply("ok"), user("more")])
    assert len(made) == MAX_SESSIONS + 1
    answer(pool, [user("0"), reply("ok"), user("more")])
    assert len(made) == MAX_SESSIONS + 2


def test_of_many_with_one_opening_the_one_with_the_last_reply_goes_on(made, pool):
    anew = SessionPool(pool._make, anew=True)
    opening = [SYSTEM, user("a")]
    for number in range(6):
        answer(anew, opening, f"reply {number}")
    assert len(made) == 6
    for number in (3, 0, 5):
        more = [*opening, reply(f"reply {number}"), user("more")]
        assert answer(anew, more, "later") is made[number]
        edited = [*opening, user("a word more"), reply(f"reply {number}"), reply("later")]
        assert answer(anew, [*edited, user("and more")]) is made[number]


def test_a_task_that_an_edit_changed_is_known_by_what_it_became(made):
    def make():
        made.append(Session(rewriting, id=str(len(made))))
        return made[-1]

    pool = SessionPool(make)
    answer(pool, [SYSTEM, user("a")])
    assert pool.last.view[1] == user("b")
    assert answer(pool, [*pool.last.view, user("more")]) is made[0]
    assert answer(pool, [*made[0].history, user("even more")]) is made[0]


def test_a_session_can_be_forgotten(pool, made):
    first = answer(pool, [SYSTEM, user("a")])
    pool.forget(first)
    pool.forget(first)
    assert (pool.sessions, pool.last) == ((), None)
    assert answer(pool, [SYSTEM, user("a"), reply("ok"), user("more")]) is not first


def test_malformed_messages_are_refused(pool):
    with pytest.raises(TrajectoryError, match="message 1 is a int"):
        pool.begin([SYSTEM, 3])
