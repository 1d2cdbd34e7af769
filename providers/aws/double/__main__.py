"""``python -m providers.aws.double``: serve until standard input ends; the first line printed is the URL."""

import argparse
import sys

from providers.aws.double.server import Ec2Double


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m providers.aws.double", description="A stand-in for EC2.")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    parser.add_argument("--forever", action="store_true", help="serve until interrupted, whatever standard input does")
    arguments = parser.parse_args()
    with Ec2Double(port=arguments.port) as double:
        sys.stdout.write(f"{double.url}\n")
        sys.stdout.flush()
        if arguments.forever:
            double.wait()
        else:
            # Whoever started us holds the other end: when it dies, however it dies, so do we.
            sys.stdin.read()


if __name__ == "__main__":
    main()
