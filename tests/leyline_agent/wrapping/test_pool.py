import pytest

from leyline_agent import Session, TrajectoryError
from leyline_agent.wrapping.pool import MAX_SESSIONS, SessionPool

SYSTEM = {"role": "system", "content": "s"}


def user(text):
    return {"role": "user", "content": text}


def reply(text):
    return {"role": "assistant", "content": text}


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


def test_a_failed_first_call_leaves_its_session_to_the_next(pool, made):
    pool.begin([SYSTEM, user("a")]).fail("down")
    answer(pool, [SYSTEM, user("b")])
    assert len(made) == 1


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


def test_malformed_messages_are_refused(pool):
    with pytest.raises(TrajectoryError, match="message 1 is a int"):
        pool.begin([SYSTEM, 3])
