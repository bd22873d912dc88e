# SPDX-License-Identifier: MIT
"""What tests in Python share: their cases are told in TAP."""

import traceback

LINES = 80  # of a failed case


class Failed(Exception):
    """What a case wanted is not so; the text is for who repairs it."""


class Skipped(Exception):
    """Why a case cannot be run here."""


def need(condition, text):
    if not condition:
        raise Failed(text)


def run_cases(cases, *arguments, skip=""):
    """Runs [(name, function)], all with these arguments, or skips all of them
    for one reason. Returns the exit status."""
    print(f"TAP version 13\n1..{len(cases)}", flush=True)
    failed = 0
    for number, (name, case) in enumerate(cases, 1):
        why, problem = skip, ""
        try:
            if not skip:
                case(*arguments)
        except Skipped as reason:
            why = str(reason)
        except Failed as reason:
            problem = str(reason) or "failed"
        except Exception:
            problem = traceback.format_exc()
        failed += bool(problem)
        print(f"{'not ok' if problem else 'ok'} {number} - {name}"
              + (f" # SKIP {why}" if why else ""), flush=True)
        for line in problem.splitlines()[:LINES]:
            print(f"# {line}", flush=True)
    return 1 if failed else 0
