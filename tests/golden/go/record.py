"""Ask Go what it does with awkward JSON and keep the answers: `python tests/golden/go/record.py`.

Needs `go` on PATH. The cases follow from the seed below, so a new recording differs from the old one
only where the cases here or Go itself have changed.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20260420
SAMPLED_PER_MESSAGE = 75

TEXTS = ("backend", "model_id", "backend_galleries", "uri", "name", "alias", "op_id")
FIELDS = {
    "BackendInstallRequest": (*TEXTS, "replica_index", "force"),
    "BackendInstallReply": ("success", "address", "error"),
    "BackendUpgradeRequest": (*TEXTS, "replica_index"),
    "BackendUpgradeReply": ("success", "error", "stopped_process_keys", "reports_stopped_processes"),
    "BackendDeleteRequest": ("backend",),
    "BackendDeleteReply": ("success", "error", "stopped_process_keys", "reports_stopped_processes"),
    "BackendListReply": ("backends", "error"),
    "BackendInstallProgress": ("op_id", "node_id", "backend", "file_name", "percentage", "phase"),
    "ModelUnloadRequest": ("model_name", "address"),
    "ModelUnloadReply": ("success", "error"),
    "ModelDeleteRequest": ("model_name",),
    "ModelDeleteReply": ("success", "error"),
    "ModelStopRequest": ("model_name", "process_key", "expected_address", "force", "config_revision"),
    "ModelStopReply": ("matched", "freed", "terminated", "process_key", "address", "error"),
    "ModelsRunningReply": ("models", "error"),
    "FilesEnsureRequest": ("key",),
    "FilesStageRequest": ("local_path", "key"),
    "FilesListdirRequest": ("key_prefix",),
    "RegisterRequest": (
        "name", "total_vram", "token", "total_ram", "available_disk", "capability",
        "max_replicas_per_model", "labels",
    ),
    "Heartbeat": ("available_vram", "available_ram", "gpu_vendor", "available_disk"),
}  # fmt: skip

# Of two lists, Go lets the second's elements inherit from the first's, and a frontend that ignores a
# wrongly typed duplicate keeps the other value. Nobody relies on either.
NO_DUPLICATES = {
    "BackendDeleteReply", "BackendListReply", "BackendUpgradeReply", "Heartbeat", "ModelsRunningReply",
}  # fmt: skip

VALUES = (
    b"null", b"true", b"false",
    b"0", b"1", b"7", b"-0", b"-1", b"1.0", b"1e0", b"19.16", b"1e400", b"1e-400", b"1e-7",
    b"123456789012345678901",
    b"2147483647", b"2147483648", b"-2147483648", b"-2147483649", b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615", b"18446744073709551616", b"9" * 400,
    b'""', b'"x"', b'"0"', b'"true"', b'"a\\u003cb\\/\\b\\f\\n\\r\\t\\"\\\\\\u0000\\u001f\x7f<>&"',
    '"é\u2028\u2029😀"'.encode(), b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\ude00\\ud83d"',
    b'"\\ud83d\\u0041"', b'"\\ud83d\xff"',
    b'"a\xffb"', b'"\xe2\x82"', b'"\xed\xa0\x80"', b'"\xf0\x9f\x98"', b'"\xc0\xaf"', b'"\xe2\x82\xac\xac"',
    b"[]", b'["a","b"]', b'["a",null]', b"[1]", b"[null]", b"[[]]",
    b"{}", b'{"a":"b"}', b'{"b":"2","a":"1"}', b'{"a":null}', b'{"a":1}', b'{"\\ud83d":"x"}', b"[{}]",
    b'[{"name":"n","is_meta":true,"digest":"d"},{"MODEL_ID":"m","replica_index":3},null]',
    b'[{"name":1,"model_id":"m"}]', b'[{"replica_index":1.5,"is_system":0}]',
    # no JSON at all
    b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"1e", b"-", b"0x1", b"tru", b"True",
    b"nul",
    b"'x'", b'"x', b'"\\x"', b'"\\u12"', b'"\x01"', b'"\n"', b"[1,]", b"[,]", b'{"a":1,}', b'{"a"}',
    b"{a:1}", b"/**/1", b"",
)  # fmt: skip

DOCUMENTS = (
    b"", b" ", b"\t\r\n ", b"\x0b{}", b"null", b" null ", b"{}", b" \n{}\t", b"{}x", b"{}{}",
    b"null null", b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00", b"{}\x00", b"[]", b"[{}]", b'"x"', b"5", b"true", b"{", b'{"', b'{"backend":',
    b"}", b"NaN",
    b'{"unknown":[1,{"deep":[null,true,1.5e3]}],"backend":"b","key":"k","model_name":"m"}',
    b'{"unknown":"\xff","backend":"b"}', b'{"unknown":NaN}', b'{"unknown":1e999999}',
    b"\xa0{}", b"{\xc2\xa0}", b'{"force":true}',
)  # fmt: skip

STRINGS = (
    *(bytes([code]) for code in range(0x100)),
    *(chr(code).encode() for code in (0x7F, 0x80, 0xAD, 0xA0, 0x200B, 0x2028, 0x2029, 0xE000, 0xFEFF,
    0xFFFD, 0xFFFF)),
    *(chr(code).encode() for code in (0x10000, 0x1F600, 0xE0001, 0x10FFFF, 0x0301, 0x3000, 0x05D0)),
    b"", b'say "hi" \\ `now`', b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "naïve ☃ 模型".encode(),
)  # fmt: skip

NUMBERS = (
    b"0", b"-0", b"1", b"100", b"19.16", b"0.1", b"1e-6", b"9.99e-7", b"1e-7", b"1.5e-9", b"1e-10", b"1e20",
    b"123456789012345678901", b"1e21", b"1.5e300", b"5e-324", b"1.7976931348623157e308", b"-2.5",
    b"99.99999999999999",
    b"33.333333333333336", b"1e16", b"1234567.875", b"9007199254740993", b"1e15",
)  # fmt: skip


def spellings(name: str) -> list[str]:
    return [
        name,
        name.upper(),
        name.title(),
        name.replace("s", "\u017f"),
        name.replace("k", "\u212a"),
        name + " ",
    ]


def message_cases(message: str, rng: random.Random) -> list[tuple[str, bytes]]:
    bodies = list(DOCUMENTS)
    for field in FIELDS[message]:
        named = f'"{field}":'.encode()
        for value in VALUES:
            bodies.append(b"{" + named + value + b"}")
            if message in NO_DUPLICATES:
                continue
            other = b'"' + rng.choice(spellings(field)).encode() + b'":' + rng.choice(VALUES)
            bodies.append(b"{" + named + value + b" , " + other + b"}")
            bodies.append(b"{" + other + b",\n" + named + value + b"}")
    return [(message, body) for body in bodies]


def ask(cases: list[tuple[str, bytes]]) -> list[dict[str, object]]:
    go = shutil.which("go")
    if go is None:
        sys.exit("record.py needs `go` on PATH")
    lines = [json.dumps({"ask": question, "text": text.decode("latin-1")}) for question, text in cases]
    done = subprocess.run(
        [go, "run", str(HERE / "oracle.go")],
        input="\n".join(lines),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


def main() -> None:
    rng = random.Random(SEED)
    cases = []
    for message in sorted(FIELDS):
        cases += sorted(rng.sample(message_cases(message, rng), SAMPLED_PER_MESSAGE))
    cases += [("string", text) for text in STRINGS] + [("quote", text) for text in STRINGS]
    cases += [("number", text) for text in NUMBERS]
    answers = ask(cases)
    kept = [
        json.dumps({"ask": question, "text": text.decode("latin-1"), **answer})
        for (question, text), answer in zip(cases, answers, strict=True)
    ]
    (HERE / "recorded.json").write_text("[\n" + ",\n".join(kept) + "\n]\n", encoding="ascii")


if __name__ == "__main__":
    main()
