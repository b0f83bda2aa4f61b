#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a test names each sentence that the sources refuse something with.

    scripts/check_messages.py          check
    scripts/check_messages.py --list   every sentence, with the file of a test that names it

A sentence is what stands in quotes in a call of SPEAKERS; its parts lie between what is filled in. A test names it when
one of its literals holds FEWEST letters of one part in a row, or all of the longest part, or all parts. Where the same
words stand at n places of the sources, n literals of the tests are wanted; with a deck key beside the words, the key has
to be named there too.

It cannot see whether the test provokes the sentence at that very place, nor sentences that are put together elsewhere.
"""

import pathlib
import re
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("app", "core", "io", "layers", "parallel")
SPEAKERS = re.compile(r"\b(require|(?:Input|Environment|BadNumber)?Error|check|refuse|fail|damaged)\(")
ASKS_FIRST = {"require", "check"}  # the first argument is the condition
FEWEST = 14
LITERAL = re.compile(r'R"\((.*?)\)"|"((?:[^"\\\n]|\\.)*)"', re.S)
CHOICE = re.compile(r'\? "\w*" :')  # a word in the place of a value
FILLED_IN = re.compile(r"\{[^{}]*\}")

# What no machine without a GPU can provoke.
ELSEWHERE = {"core/matmul_cublas.cpp"}


class Sentence(NamedTuple):
    place: str  # file:line
    key: str    # of a deck; "" if there is none
    parts: tuple


def arguments(text, begin):
    """The arguments of the call whose parenthesis opens before `begin`."""
    depth, start, found, i = 1, begin, [], begin
    while depth > 0:
        literal = LITERAL.match(text, i)
        if literal:
            i = literal.end()
            continue
        letter = text[i]
        if text.startswith("'", i) and not text[i - 1].isalnum():
            i += 3 if text[i + 1] != "\\" else 4
            continue
        depth += letter in "([{"
        depth -= letter in ")]}"
        if depth == 0 or (depth == 1 and letter == ","):
            found.append(text[start:i])
            start = i + 1
        i += 1
    return found


def literals(text):
    """Those that stand side by side are one."""
    found, end = [], None
    for match in LITERAL.finditer(text):
        value = match.group(1) if match.group(1) is not None else match.group(2)
        value = value.replace('\\"', '"').replace("\\n", "\n")
        if end is not None and not text[end:match.start()].strip():
            found[-1] += value
        else:
            found.append(value)
        end = match.end()
    return found


def without_comments(text):
    """As long as before, so that lines keep their numbers."""
    return re.sub(r"^[ \t]*//.*$|[ \t]//\s.*$", "", text, flags=re.M)


def sentences():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.[ch]pp")):
            name = path.relative_to(ROOT).as_posix()
            if name in ELSEWHERE:
                continue
            text = without_comments(path.read_text(encoding="utf-8"))
            for call in SPEAKERS.finditer(text):
                words = arguments(text, call.end())
                words = words[1:] if call.group(1) in ASKS_FIRST else words
                key = ""
                if call.group(1) in ("check", "fail") and len(words) > 1:
                    key = (literals(words[0]) or [""])[0]
                    words = words[1:]
                parts = [part.strip(" :;,.()\n") for word in words for literal in literals(CHOICE.sub("?", word))
                         for part in FILLED_IN.split(literal)]
                parts = [part for part in parts if re.search(r"[a-z]{2}", part)]
                if parts:
                    line = text.count("\n", 0, call.start()) + 1
                    yield Sentence(f"{name}:{line}", key, tuple(parts))


def tests():
    """The literals of each test, in their order."""
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.suffix in (".cpp", ".hpp"):
            yield path.relative_to(ROOT).as_posix(), literals(without_comments(path.read_text(encoding="utf-8")))
        elif path.suffix == ".sh":
            text = re.sub(r"^[ \t]*#.*$", "", path.read_text(encoding="utf-8"), flags=re.M)
            quoted = re.findall(r'"((?:[^"\\]|\\.)*)"|\'([^\'\n]*)\'', text)
            found = [(double or single).replace('\\"', '"') for double, single in quoted]
            yield path.relative_to(ROOT).as_posix(), found


def shared(part, literal):
    """The longest run of whole words of `part` that `literal` holds; "" when it is too short to tell anything."""
    ends = [m.end() for m in re.finditer(r"\w\b", part)]
    longest = ""
    for begin in (m.start() for m in re.finditer(r"\b\w", part)):
        for end in reversed(ends):
            if end - begin <= max(len(longest), min(FEWEST, len(part)) - 1):
                break
            if part[begin:end] in literal:
                longest = part[begin:end]
                break
    return longest


def holds_all(literal, parts):
    """Whether it holds all of them, in their order."""
    return re.search(".*".join(map(re.escape, parts)), literal, re.S) is not None


def naming(sentence, tested, everything):
    """The file of a test that names it, or None."""
    for name, found in tested:
        for i, literal in enumerate(found):
            if sentence.key and not any(sentence.key in near for near in found[max(0, i - 2):i + 1]):
                continue
            if holds_all(literal, sentence.parts):
                return name
            longest = max(sentence.parts, key=len)
            for words in (shared(part, literal) for part in sentence.parts):
                if len(words) < (min(FEWEST, len(longest)) if words == longest else FEWEST):
                    continue
                wanted = sum(any(words in other for other in s.parts) for s in everything)
                if sentence.key or sum(words in other for _, more in tested for other in more) >= wanted:
                    return name
    return None


def main():
    everything, tested = list(sentences()), list(tests())
    unnamed = 0
    for sentence in everything:
        name = naming(sentence, tested, everything)
        words = (sentence.key + ": " if sentence.key else "") + " ... ".join(sentence.parts)
        if name is None:
            unnamed += 1
            print(f"{sentence.place}: no test names this sentence: {words}")
        elif "--list" in sys.argv:
            print(f"{sentence.place}: {words}  [{name}]")
    print(f"messages: {len(everything)} sentences, {unnamed} without a test")
    return unnamed > 0


if __name__ == "__main__":
    sys.exit(main())
