"""`encke token KEY`: mint a subscriber token."""

from __future__ import annotations

import argparse
import os
import re
import time

UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

_DURATION = re.compile(r"([0-9]{1,10})([smhd]?)", re.ASCII)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the arguments."""
    parser = subparsers.add_parser(
        "token",
        help="mint a subscriber token",
        description="Mint a token that lets its bearer subscribe to a key for a while.",
    )
    parser.add_argument("key", metavar="KEY", type=_key, help="what it lets its bearer subscribe to")
    parser.add_argument(
        "--ttl",
        metavar="TIME",
        type=duration_s,
        default=3600,
        help="how long it is good: 90s, 30m, 1h, 7d (1h)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", metavar="FILE", help="take the first of auth.secrets in this file")
    source.add_argument("--secret-env", metavar="NAME", help="take the secret from this environment variable")


def run(args: argparse.Namespace) -> int:
    """Print the token."""
    from cluster.tokens import mint

    print(mint(_secret(args), args.key, int(time.time()) + args.ttl))
    return 0


def duration_s(text: str) -> int:
    """Read "1h", "90s" or a number of seconds."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90s, 30m, 1h or 7d")
    return int(match[1]) * UNITS_S[match[2]]


def _key(text: str) -> str:
    from cluster.model import key_fault

    fault = key_fault(text)
    if fault is not None:
        raise argparse.ArgumentTypeError(fault)
    return text


def _secret(args: argparse.Namespace) -> str:
    from cluster.errors import ConfigError
    from encke.config import load_config

    if args.secret_env is not None:
        secret = os.environ.get(args.secret_env, "")
        if not secret:
            raise ConfigError([f"the environment variable {args.secret_env} is not set"])
        return secret
    secrets = load_config(args.config, used=("auth",)).auth.secrets
    if not secrets:
        place = args.config or "the environment (ENCKE_AUTH__SECRETS)"
        raise ConfigError([f"no auth.secrets in {place}: give --config FILE or --secret-env NAME"])
    return secrets[0]
