"""What the master decides about its servers."""

from actors.game import ServerSpec
from actors.membership import KEPT, RESTART, Membership
from handlers.members import RESTARTING, SERVING, Member


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def two(clock: Clock) -> Membership:
    return Membership([ServerSpec(id="a-1", type="a"), ServerSpec(id="b-1", type="b", frontend=True)], clock)


def boot(membership: Membership, server_id: str, port: int = 0) -> Member:
    registration = membership.register(server_id)
    member = Member(id=server_id, type=server_id[0], incarnation=registration.incarnation, port=port)
    assert membership.booted(member)
    return member


def test_incarnations_grow_with_every_life_of_any_server() -> None:
    membership = two(Clock())
    lives = [membership.register(server_id).incarnation for server_id in ("a-1", "b-1", "a-1", "a-1", "b-1")]
    assert lives == sorted(set(lives))


def test_incarnations_go_on_growing_when_a_master_has_forgotten_them() -> None:
    clock = Clock()
    before = [two(clock).register("a-1").incarnation for _ in range(3)][-1]
    clock.now += 5
    assert two(clock).register("a-1").incarnation > before


def test_a_restarted_master_continues_from_the_servers_it_finds() -> None:
    clock = Clock()
    membership = two(clock)
    assert membership.booted(Member(id="a-1", type="a", incarnation=2_000_000))
    assert membership.register("b-1").incarnation == 2_000_001


def test_a_port_once_found_is_given_again() -> None:
    membership = two(Clock())
    assert membership.register("b-1").port == 0
    boot(membership, "b-1", 4711)
    assert membership.register("b-1").port == 4711


def test_a_dead_server_keeps_its_place_for_a_while_and_loses_it_then() -> None:
    clock = Clock()
    membership = two(clock)
    member = boot(membership, "a-1")
    membership.lost("a-1")
    clock.now += KEPT
    assert membership.expire() == []
    assert membership.members() == [member]
    assert membership.missing() == ["a-1", "b-1"]
    clock.now += 1
    assert membership.expire() == ["a-1"]
    assert membership.members() == []
    back = boot(membership, "a-1")
    assert membership.members() == [back]


def test_a_server_that_comes_back_in_time_never_loses_its_place() -> None:
    clock = Clock()
    membership = two(clock)
    boot(membership, "a-1")
    membership.lost("a-1")
    clock.now += 20
    boot(membership, "a-1")
    clock.now += 20
    assert membership.expire() == []


def test_the_life_that_was_ended_for_the_next_one_is_not_taken_for_it() -> None:
    membership = two(Clock())
    member = boot(membership, "a-1")
    membership.plan("a-1", RESTARTING, RESTART)
    membership.renew(membership.spec("a-1"))
    assert not membership.booted(member)
    assert membership.living() == []
    boot(membership, "a-1")
    assert membership.state("a-1") == SERVING


def test_a_life_that_boots_after_a_later_one_registered_is_not_taken_in() -> None:
    membership = two(Clock())
    old = membership.register("a-1").incarnation
    membership.register("a-1")
    assert not membership.booted(Member(id="a-1", type="a", incarnation=old))
    assert membership.members() == []
