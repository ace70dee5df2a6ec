"""Does it hold? A promise is measured until that is clear."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]


def until_clear(what: str, batches: int, run: Callable[[], tuple[bool, str]], say: Say) -> bool:
    """More rounds are added to the same sample until it says yes twice in a row. Noise goes away with rounds; a real
    no stays, and one lucky batch at the border is no yes."""
    held = batches == 1
    for batch in range(batches):
        holds, found = run()
        say(f"{what}, sample {batch + 1}: {found}")
        if holds and held:
            print(f"holds: {what}: {found}")
            return True
        held = holds
    print(f"DOES NOT HOLD: {what}: {found}")
    return False


def not_measured(what: str, why: str) -> bool:
    print(f"DOES NOT HOLD: {what}: not measured, for want of {why}")
    return False
