"""Mutations of files: each takes bytes and a generator of random numbers and gives other bytes, the same for a seed.

content = mutate(content, np.random.default_rng(seed))
"""

from collections.abc import Callable

import numpy as np

TOKENS = [
    *(b"", b" ", b"\t", b"\n", b"\r", b"\r\n", b"\f", b"\v", b"\0", b"\x1a", b"\x7f", b"\xff", b"\xc3\x28"),
    *("\ufeff".encode(), "\u2028".encode(), "\u202e".encode(), "\ufffd".encode(), "１".encode(), "é".encode("latin-1")),
    *(b"nan", b"NaN", b"-nan", b"nan(1)", b"inf", b"-inf", b"1e999", b"1e-999", b"0x10", b"1_0", b"1,5", b"--1", b"-0"),
    *(b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616", b"4294967296", b"65535", b"9" * 400),
    *(
        b"null",
        b"true",
        b"{}",
        b"[]",
        b"[[",
        b"]]",
        b'"',
        b"'",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"[" * 2000,
        b"{" * 2000,
    ),
    *(b"..", b"../../x", b"/", b"/dev/zero", b"~", b"%s%n", b"=1+1", b"x" * 5000, b"!!python/object:os.system"),
    *(
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xc0",
        b"\xff\xff",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x80\x00\x00\x00",
    ),
]
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp037", "utf-7")


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for offset in rng.integers(len(content), size=rng.integers(1, 9)) if content else ():
        changed[offset] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Leaves out a part: of the end, of the beginning or between."""
    start, end = _span(content, rng)
    return (content[:end], content[start:], content[:start] + content[end:])[rng.integers(3)]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng, most=4096)
    return content[:end] + content[start:end] * int(rng.integers(1, 9)) + content[end:]


def swap(content: bytes, rng: np.random.Generator) -> bytes:
    """Exchanges two parts that follow each other."""
    start, middle, end = np.sort(rng.integers(len(content) + 1, size=3))
    return content[:start] + content[middle:end] + content[start:middle] + content[end:]


def insert_token(content: bytes, rng: np.random.Generator) -> bytes:
    offset = rng.integers(len(content) + 1)
    return content[:offset] + _token(rng) + content[offset:]


def replace_word(content: bytes, rng: np.random.Generator) -> bytes:
    """Puts a token in the place of what lies between two separators."""
    separator = (b"\t", b",", b"\n", b" ", b":", b'"')[rng.integers(6)]
    words = content.split(separator)
    words[rng.integers(len(words))] = _token(rng)
    return separator.join(words)


def change_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Puts other digits in the place of one."""
    offsets = [offset for offset, byte in enumerate(content[:100_000]) if 48 <= byte <= 57]
    if not offsets:
        return content
    offset = offsets[rng.integers(len(offsets))]
    digits = b"".join(b"%d" % digit for digit in rng.integers(10, size=rng.integers(0, 25)))
    return content[:offset] + digits + content[offset + 1 :]


def fill(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrites a part with one byte, as a disk that lost a block does, or with noise."""
    start, end = _span(content, rng, most=4096)
    block = (
        rng.bytes(end - start)
        if rng.random() < 0.3
        else bytes([int(rng.choice([0, 255, 9, 10, 32, 48]))]) * (end - start)
    )
    return content[:start] + block + content[end:]


def encode(content: bytes, rng: np.random.Generator) -> bytes:
    return content.decode("utf-8", "replace").encode(ENCODINGS[rng.integers(len(ENCODINGS))], "replace")


def end_lines(content: bytes, rng: np.random.Generator) -> bytes:
    """Ends the lines as another system does, or in no way."""
    return content.replace(b"\n", (b"\r\n", b"\r", b"\n\r", b"\n\n", b"")[rng.integers(5)])


MUTATIONS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    *(flip_bits, cut, repeat, swap, insert_token, insert_token),
    *(replace_word, replace_word, change_number, fill, encode, end_lines),
)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three mutations in turn."""
    for choice in rng.integers(len(MUTATIONS), size=rng.integers(1, 4)):
        content = MUTATIONS[choice](content, rng)
    return content


def _span(content, rng, most=None):
    start, end = np.sort(rng.integers(len(content) + 1, size=2))
    return start, end if most is None else min(end, start + most)


def _token(rng):
    return TOKENS[rng.integers(len(TOKENS))]
