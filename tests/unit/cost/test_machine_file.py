"""Machine files: what they may say, that what is written is read back, and that every mistake is named with its place."""

from __future__ import annotations

from math import inf
from pathlib import Path

import msgspec
import pytest
from calls import calls

from unitp.cost import Device, Link, Machine, Pair, Rate, Stretch
from unitp.cost.link import KINDS
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


LINK = "\nlatency_s = 1\nbytes_per_s = 1\ncall_s = 1"
OTHER = "[devices.other]\nflops_per_s = { float32 = 1 }\nmemory_bytes_per_s = 1\noperator_s = 0"
SPEEDS = "a table of FLOP/s by dtype, as in { float32 = 19.5e12 }"


def missing(place: str, wanted: str) -> list[str]:
    return [f"{place} is missing; it must be {wanted}."]


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
    said = [
        "speed is not a known entry. Known: axes, devices, link, name, network, pairs, ranks, ranks_per_node.",
        "devices.cpu.flops_per_s.float32 must be a positive number of FLOPs per second, but it is -1.",
        'devices.cpu.operator_s must be a number of seconds that is not negative, but it is "fast".',
        "devices.cpu.program_s must be a number of seconds that is not negative, but it is -1.",
        "devices.cpu.matmul.bfloat16 has rows 4, 4, which must ascend.",
        'devices.cpu.matmul.float32 must be a list of points [rows, FLOP/s], all positive, but it is "much".',
        'devices.cpu.operators.Swich is not an operator. Did you mean "Swish"?',
        'devices.cpu.operators.Softmax.operator_ms is not a known entry. Did you mean "operator_s"?',
        "devices.cpu.operators.Softmax.bytes_per_s must be a positive number of bytes per second, but it is 0.",
        "devices.cpu.operators.Add must be a table, but it is 7.",
        "devices.cpu.busy.1 is not a number of ranks from 2 to 1024.",
        *missing("devices.cpu.busy.1.flops_per_s", SPEEDS),
        *missing("devices.cpu.busy.1.memory_bytes_per_s", "a positive number of bytes per second"),
        *missing("devices.cpu.busy.1.operator_s", "a number of seconds that is not negative"),
        'devices.cpu.busy.2.memory is not a known entry. Did you mean "memory_bytes_per_s"?',
        *missing("devices.cpu.busy.2.flops_per_s", SPEEDS),
        *missing("devices.cpu.busy.2.memory_bytes_per_s", "a positive number of bytes per second"),
        *missing("devices.cpu.busy.2.operator_s", "a number of seconds that is not negative"),
        *missing("devices.cpu.memory_bytes_per_s", "a positive number of bytes per second"),
        "devices.cpu.operators.MatMul.flops_per_s is not read: the table matmul has the speed of MatMul.",
        "link.latency_s must be a number of seconds that is not negative, but it is nan.",
        "link.bytes_per_s must be a positive number of bytes per second, but it is true.",
        "link.all_reduce must be a table, or a list of tables whose up_to ascends, but it is [].",
        'link.all_reduces is not a known entry. Did you mean "all_reduce"?',
        *missing("link.call_s", "a number of seconds that is not negative"),
        *missing("link.all_gather[0].up_to", "a size such as 8GiB, 80GB or 500000000"),
        "link.all_gather[1].up_to must be left out of the last table.",
    ]
    assert found.splitlines() == ["m.toml is not a machine file:", *(f"  {line}" for line in said)]


@pytest.mark.parametrize(
    "change, told",
    [
        ('ranks = ["cpu", "gpu"]', ['ranks[1] must be one of cpu, but it is "gpu".']),
        ("ranks = 3", ['ranks must be a list of at most 1024 device classes, as in ["fast", "slow"], but it is 3.']),
        ("name = 3", ["name must be a text in quotes, but it is 3."]),
        ("ranks_per_node = 2", ["network is missing; a file that has ranks_per_node must have it too."]),
        (
            "ranks_per_node = 0",
            [
                "ranks_per_node must be a whole number from 1 to 1024, but it is 0.",
                "network is missing; a file that has ranks_per_node must have it too.",
            ],
        ),
        (f"[network]{LINK}", ["ranks_per_node is missing; a file that has network must have it too."]),
        (
            f"[[pairs]]\nranks = [0, 0]{LINK}",
            ["pairs[0].ranks must be two different ranks, as in [0, 1], but it is [0, 0]."],
        ),
        (
            f"[[pairs]]\nranks = [0, 1]{LINK}\n[[pairs]]\nranks = [1, 0]",
            [
                *missing("pairs[1].latency_s", "a number of seconds that is not negative"),
                *missing("pairs[1].bytes_per_s", "a positive number of bytes per second"),
                *missing("pairs[1].call_s", "a number of seconds that is not negative"),
                "pairs[1].ranks names ranks 1 and 0, which an earlier pair has.",
            ],
        ),
        (
            f"ranks = ['cpu', 'cpu']\n{SHORT}\n[[pairs]]\nranks = [0, 2]{LINK}",
            ["pairs[0].ranks must be below 2, because ranks lists 2, but it is [0, 2]."],
        ),
        ("[axes]\ntp = 3", ["axes.tp must be a table, but it is 3."]),
        (OTHER, ["ranks is missing; there are several devices, so it must list the class of each rank."]),
        (f"ranks = ['cpu']\n{SHORT}{OTHER}", ["devices.other is the class of no rank."]),
        (
            "[devices.cpu.matmul]\nfloat64 = [[1, 1e9]]",
            [*missing("devices.cpu.matmul.float32", "a list of points [rows, FLOP/s], all positive")],
        ),
        (
            "[devices.cpu.matmul]\nfloat32 = [[1, 1e9], [2, 1e31]]",
            [
                "devices.cpu.matmul.float32 must be points of numbers from 1e-30 to 1e+30, but it is [[1.0, 1000000000.0], [2.0, 1e+31]]."
            ],
        ),
        (
            "[devices.cpu.matmul]\nfloat31 = 3",
            [
                'devices.cpu.matmul.float31 is not a dtype of a machine. Did you mean "float32"?',
                "devices.cpu.matmul.float31 must be a list of points [rows, FLOP/s], all positive, but it is 3.",
            ],
        ),
        ("[devices]\ncpu = 3\n[link]" + LINK, ["devices.cpu must be a table, but it is 3."]),
        (f"devices = 3\n[link]{LINK}", ["devices must be at least one table [devices.NAME], but it is 3."]),
        (f"[devices]\n[link]{LINK}", ["devices must have at least one table [devices.NAME]."]),
        (
            "held_byte_s = 5e-12",
            [
                "held_byte_s is not read any more, because held bytes have no price: of the plans within 0.1 % of the fastest, "
                "the one that holds fewest bytes is taken. Delete this entry."
            ],
        ),
    ],
)
def test_an_inconsistent_file_says_what_does_not_fit(change: str, told: list[str]) -> None:
    whole = "[link]" in change
    text = change if whole else f"{SHORT}\n{change}" if change.startswith("[") else f"{change}\n{SHORT}"
    assert problems_of(text).splitlines() == ["m.toml is not a machine file:", *(f"  {line}" for line in told)]


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_a_collective_ascend(kind: str) -> None:
    numbers = "latency_s = 1, bytes_per_s = 1, call_s = 1"
    tables = ", ".join([f'{{ {numbers}, up_to = "{size}" }}' for size in ("2KB", "1KB")] + [f"{{ {numbers} }}"])
    told = f"  link.{kind} has sizes up_to 2000, 1000, which must ascend."
    assert problems_of(f"{SHORT}{kind} = [{tables}]").splitlines()[1:] == [told]
    told = f"  link.{kind}.up_to must be left out of the last table."
    assert problems_of(f"{SHORT}{kind} = {{ {numbers}, up_to = 3 }}").splitlines()[1:] == [told]


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a profile") as caught:
        load_machine("h100-nvlinks")
    assert "h100-nvlink" in caught.value.hint
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot read the machine"):
        load_machine(tmp_path / "m.toml")
    with pytest.raises(InputError, match="cannot read the machine"):
        load_machine(tmp_path)
    assert problems_of("").splitlines()[1:] == [
        "  devices is missing; it must be at least one table [devices.NAME].",
        "  link is missing; it must be a table.",
    ]
    assert "is not TOML" in problems_of(f"{SHORT}[devices.cpu]\nmatmul = 3")


def test_of_very_many_mistakes_the_first_are_told_at_once() -> None:
    operators = "".join(f"Swisch{i} = {{}}\n" for i in range(20_000))

    def read() -> None:
        with pytest.raises(InputError, match="There may be more than these 50 faults") as raised:
            parse_machine(f"{SHORT}[devices.cpu.operators]\n{operators}")
        assert raised.value.message.count("\n") == 51

    assert calls(read) < 100 * 20_000, "looking for the nearest name of each takes thousands of calls"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("operator_s = 1e-320", "devices.cpu.operator_s must be 0 or a number from 1e-30 to 1e[+]30"),
        ("memory_bytes_per_s = 1e300", "a number from 1e-30 to 1e[+]30"),
        ("operator_s = inf", "devices.cpu.operator_s must be 0 or a number from 1e-30 to 1e[+]30, but it is inf"),
        ("operator_s = nan", "devices.cpu.operator_s must be a number of seconds that is not negative, but it is nan"),
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
        InputError, match=r"ranks_per_node must be a whole number from 1 to 1024, but it is 18446744073709551616"
    ):
        parse_machine(f"ranks_per_node = {2**64}\n{SHORT}[network]\n{lines}")
    with pytest.raises(InputError, match=r"pairs\[0\].ranks"):
        parse_machine(f"{SHORT}[[pairs]]\nranks = [0, {2**64}]\n{lines}")
