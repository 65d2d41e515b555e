import re
from pathlib import Path

from wvs.postgres import locks
from wvs.postgres.pool import Pool
from wvs.postgres.sources import database_files

CLASSES = {name: value for name, value in vars(locks).items() if name.isupper()}
# The text of these functions is frozen until a migration drops them.
RETIRED = {"commit_command"}


async def test_the_numbers_in_sql_are_those_of_python(pool: Pool):
    row = await pool.fetchrow("SELECT wvs.command_lock(), wvs.holder_lock(), wvs.watermark_lock()")
    assert row == (locks.COMMAND, locks.HOLDER, locks.WATERMARK)


def test_no_two_locks_have_the_same_class():
    assert len(set(CLASSES.values())) == len(CLASSES)


def test_no_other_text_of_sql_or_python_contains_a_number():
    homes = {
        "command_lock.sql": {locks.COMMAND},
        "holder_lock.sql": {locks.HOLDER},
        "watermark_lock.sql": {locks.WATERMARK},
    }
    texts = [*database_files("functions").glob("*.sql"), *database_files("queries").glob("*.sql")]
    texts += [path for path in Path(locks.__file__).parents[1].rglob("*.py") if path.name != "locks.py"]
    found = {path.name: numbers for path in texts if path.stem not in RETIRED and (numbers := _numbers(path))}
    assert found == homes


def _numbers(path: Path) -> set[int]:
    found = re.findall(r"\b0[xX][0-9a-fA-F_]+\b|\b[0-9][0-9_]*\b", path.read_text(encoding="utf-8"))
    numbers = {int(text.replace("_", ""), 16 if text[:2] in {"0x", "0X"} else 10) for text in found}
    return numbers & {*CLASSES.values()}
