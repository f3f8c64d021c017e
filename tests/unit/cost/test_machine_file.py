"""Machine files: what they may say, that what is written is read back, and that every mistake is named with its place."""

from __future__ import annotations

from math import inf
from pathlib import Path

import msgspec
import pytest
from calls import calls

from unitp.cost import Device, Link, Machine, Pair, Rate, Stretch
from unitp.cost.machine_file import load_machine, parse_machine, profiles
from unitp.cost.machine_text import machine_text, rounded
from unitp.errors import InputError

SHORT = """
[devices.cpu]
flops_per_s = { float32 = 1e11 }
memory_bytes_per_s = 2e10
operator_s = 5e-6

[link]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
"""

CALIBRATED = """
name = "a host"

[devices.cpu]
flops_per_s = { float32 = 1e11, float64 = 5e10 }
memory_bytes_per_s = 2e10
operator_s = 5e-6
program_s = 3e-4
[devices.cpu.matmul]
float32 = [[1, 1e10], [256, 1e11]]
[devices.cpu.operators]
Swish = { operator_s = 1.5e-5, flops_per_s = 1e10 }
Reshape = { operator_s = 2e-6 }
[devices.cpu.busy.2]
flops_per_s = { float32 = 8e10 }
memory_bytes_per_s = 1e10
operator_s = 6e-6

[link]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
all_reduce = [{ up_to = "64KiB", latency_s = 1e-5, bytes_per_s = 1e9, call_s = 1e-4 }, { latency_s = 2e-5, bytes_per_s = 2e9, call_s = 0 }]
all_gather = { latency_s = 4e-5, bytes_per_s = 4e9, call_s = 0 }
"""


def test_an_uncalibrated_file_stays_short() -> None:
    machine = parse_machine(SHORT)
    assert machine.devices == {"cpu": Device({"float32": 1e11}, 2e10, 5e-6)}
    assert machine.link == Link(5e-6, 2e9, 30e-6)


def test_a_calibrated_file_says_what_differs() -> None:
    machine = parse_machine(CALIBRATED)
    device = machine.devices["cpu"]
    assert device.matmul == {"float32": ((1.0, 1e10), (256.0, 1e11))}
    assert device.operators == {"Swish": Rate(1.5e-5, 1e10), "Reshape": Rate(2e-6)}
    assert device.busy == {2: Device({"float32": 8e10}, 1e10, 6e-6)}
    assert machine.link.kinds["all_reduce"] == (Stretch(1e-5, 1e9, 1e-4, 65536), Stretch(2e-5, 2e9, 0.0))
    assert machine.link.kinds["all_gather"] == (Stretch(4e-5, 4e9, 0.0, inf),)


@pytest.mark.parametrize("name", profiles())
def test_a_profile_is_read_back_as_it_is_written(name: str) -> None:
    machine = load_machine(name)
    assert parse_machine(machine_text(machine, digits=17), name=name) == machine


def test_a_calibrated_machine_is_read_back_with_its_notes() -> None:
    machine = parse_machine(CALIBRATED)
    notes = {
        "": "head\nof two lines",
        "devices.cpu": "about it",
        "devices.cpu.operators.Swish": "a chain",
        "link": "rings",
    }
    text = machine_text(machine, notes)
    assert parse_machine(text) == machine
    for note in ("# head\n# of two lines\n", "# about it\n[devices.cpu]", "# a chain", "# rings\n[link]"):
        assert note in text


def test_every_part_of_a_machine_is_written() -> None:
    device = Device({"float32": 1e11}, 2e10, 5e-6, memory_bytes=8 << 30)
    link = Link(1e-6, 1e9, 2e-6, {"reduce_scatter": (Stretch(1e-6, 1e9, 0.0),)})
    machine = Machine(
        name='two "unlike" boxes',
        devices={"fast one": device, "slow": msgspec.structs.replace(device, operator_s=1e-5)},
        ranks=("fast one", "slow", "slow", "slow"),
        axes={"tp": link},
        network=Link(1e-5, 1e8, 1e-5),
        ranks_per_node=2,
        pairs=(Pair((0, 1), link),),
    )
    assert parse_machine(machine_text(machine, digits=17)) == machine


def test_rounding_is_what_the_text_says() -> None:
    machine = msgspec.structs.replace(
        Machine(), link_latency_s=1.23456789e-5, devices={"a": Device({"float32": 7.77777e9}, 1e10, 0.0)}
    )
    assert rounded(machine).link_latency_s == 1.235e-5
    assert parse_machine(machine_text(machine)).devices == rounded(machine).devices


def problems_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_machine(text, "m.toml")
    return caught.value.message


def test_all_mistakes_are_told_at_once_each_with_its_place() -> None:
    found = problems_of(
        """
        speed = 9
        [devices.cpu]
        flops_per_s = { float32 = -1 }
        operator_s = "fast"
        program_s = -1
        [devices.cpu.matmul]
        float64 = [[1, 1e9]]
        bfloat16 = [[4, 1e9], [4, 2e9]]
        float32 = "much"
        [devices.cpu.operators]
        Swich = { operator_s = 1 }
        Softmax = { operator_ms = 1, bytes_per_s = 0 }
        MatMul = { flops_per_s = 1e9 }
        Add = 7
        [devices.cpu.busy.1]
        [devices.cpu.busy.2]
        memory = "8GB"
        [link]
        latency_s = nan
        bytes_per_s = true
        all_reduce = []
        all_gather = [{ latency_s = 1, bytes_per_s = 1, call_s = 1 }, { latency_s = 1, bytes_per_s = 1, call_s = 1, up_to = 9 }]
        all_reduces = {}
        """
    )
    for line in (
        "speed: there is no such entry",
        "devices.cpu.flops_per_s.float32: -1, wanted is a number above 0",
        "devices.cpu.memory_bytes_per_s: missing, wanted is a number above 0",
        'devices.cpu.operator_s: "fast", wanted is a number of at least 0',
        "devices.cpu.program_s: -1, wanted is a number of at least 0",
        "devices.cpu.matmul.bfloat16: [4, 4], wanted is rows that ascend",
        'devices.cpu.matmul.float32: "much", wanted is points [[rows, FLOP/s], ...], all above 0',
        'devices.cpu.operators.Swich: there is no such operator. Did you mean "Swish"?',
        "devices.cpu.operators.Softmax.operator_ms: there is no such entry",
        "devices.cpu.operators.Softmax.bytes_per_s: 0, wanted is a number above 0",
        "devices.cpu.operators.MatMul.flops_per_s: there is no such entry",
        "devices.cpu.operators.Add: 7, wanted is a table",
        'devices.cpu.busy.1: "1", wanted is a number of ranks from 2 to 1024',
        "devices.cpu.busy.2.memory: there is no such entry",
        "devices.cpu.busy.2.flops_per_s: missing",
        "link.latency_s: nan, wanted is a number of at least 0",
        "link.bytes_per_s: True, wanted is a number above 0",
        "link.call_s: missing",
        "link.all_reduce: [], wanted is a table, or a list of tables with ascending up_to",
        "link.all_gather[0].up_to: wanted in all tables of the list but the last",
        "link.all_gather[1].up_to: wanted in all tables of the list but the last",
        'link.all_reduces: there is no such entry. Did you mean "all_reduce"?',
    ):
        assert line in found, line


@pytest.mark.parametrize(
    "change, told",
    [
        ('ranks = ["cpu", "gpu"]', 'ranks[1]: "gpu", wanted is one of cpu'),
        ("ranks_per_node = 2", "network: missing, wanted where ranks_per_node is given"),
        (
            "[network]\nlatency_s = 1\nbytes_per_s = 1\ncall_s = 1",
            "ranks_per_node: missing, wanted where network is given",
        ),
        ("[[pairs]]\nranks = [0, 0]\nlatency_s = 1\nbytes_per_s = 1\ncall_s = 1", "pairs[0].ranks: [0, 0]"),
        ("[axes]\ntp = 3", "axes.tp: 3, wanted is a table [axes.tp]"),
        (
            "[devices.other]\nflops_per_s = { float32 = 1 }\nmemory_bytes_per_s = 1\noperator_s = 0",
            "ranks: missing; with several",
        ),
        ("[devices.cpu.matmul]\nfloat64 = [[1, 1e9]]", "devices.cpu.matmul.float32: missing"),
        ("[devices.cpu]\nmatmul = 3", "is not TOML"),
        ("held_byte_s = 5e-12", "held_byte_s: bytes held have no price any more"),
    ],
)
def test_an_inconsistent_file_says_what_does_not_fit(change: str, told: str) -> None:
    top = change if not change.startswith("[") else ""
    assert told in problems_of(f"{top}\n{SHORT}\n{change if not top else ''}")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a profile") as caught:
        load_machine("h100-nvlinks")
    assert "h100-nvlink" in caught.value.hint
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot read the machine"):
        load_machine(tmp_path / "m.toml")
    with pytest.raises(InputError, match="cannot read the machine"):
        load_machine(tmp_path)
    assert "devices: missing" in problems_of("")


def test_of_very_many_mistakes_the_first_are_told_at_once() -> None:
    operators = "".join(f"Swisch{i} = {{}}\n" for i in range(20_000))

    def read() -> None:
        with pytest.raises(InputError, match="and maybe more") as raised:
            parse_machine(f"{SHORT}[devices.cpu.operators]\n{operators}")
        assert raised.value.message.count("\n") == 51

    assert calls(read) < 100 * 20_000, "looking for the nearest name of each takes thousands of calls"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("operator_s = 1e-320", "devices.cpu.operator_s"),
        ("memory_bytes_per_s = 1e300", "a number from 1e-30 to 1e[+]30"),
        ("operator_s = inf", "devices.cpu.operator_s: inf"),
        ("operator_s = nan", "devices.cpu.operator_s: nan"),
        ("operator_s = 1" + "0" * 39, "devices.cpu.operator_s"),
        ("operator_s = 0x" + "f" * 6000, "more than 40 digits"),
        (f'memory = "{"9" * 5000}"', "devices.cpu.memory"),
        (f"[devices.cpu.busy.{'9' * 5000}]", "a number of ranks from 2 to 1024"),
        ("[devices.cpu.busy.\u0663]", "is not TOML"),
        ('[devices.cpu.busy."\u0663"]', "a number of ranks from 2 to 1024"),
    ],
)
def test_numbers_are_numbers_that_sums_can_be_made_of(line: str, why: str) -> None:
    kept = [old for old in SHORT.splitlines() if line.startswith("[") or old.split(" =")[0] != line.split(" =")[0]]
    kept.insert(kept.index("[devices.cpu]") + 1 if not line.startswith("[") else len(kept), line)
    with pytest.raises(InputError, match=why):
        parse_machine("\n".join(kept))


def test_a_place_of_a_rank_has_a_bound() -> None:
    lines = "latency_s = 1e-6\nbytes_per_s = 1e9\ncall_s = 0\n"
    with pytest.raises(
        InputError, match=r"ranks_per_node: 18446744073709551616, wanted is a whole number from 1 to 1024"
    ):
        parse_machine(f"ranks_per_node = {2**64}\n{SHORT}[network]\n{lines}")
    with pytest.raises(InputError, match=r"pairs\[0\].ranks"):
        parse_machine(f"{SHORT}[[pairs]]\nranks = [0, {2**64}]\n{lines}")
