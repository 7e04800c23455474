"""``python -m sandbox up|down|status|produce|late-start|wait|s3``: the sandbox from the command line."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import NoReturn

from confluent_kafka import KafkaException

from bronze.errors import BronzeError, ExitCode
from sandbox.kafka import KafkaSandbox
from sandbox.produce import CLOCK_AHEAD, TOPIC, produce
from sandbox.s3 import S3Sandbox
from sandbox.story import choose_late_start, wait_for_clock
from sandbox.topics import measure_topics, no_broker_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 Kafka failed or is not up, 2 bad arguments."""
    commands = {
        "up": _up,
        "down": _down,
        "status": _status,
        "produce": _produce,
        "late-start": _late_start,
        "wait": _wait,
    }
    try:
        options = _build_parser().parse_args(arguments)
        if options.command == "s3":
            return _run_s3(options)
        return commands[options.command](KafkaSandbox(options.data_dir, options.port), options)
    except BronzeError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return error.exit_code
    except KafkaException as error:
        print(f"sandbox: Kafka refused: {error.args[0].str()}", file=sys.stderr)
        return ExitCode.FAILED
    except OSError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _up(sandbox: KafkaSandbox, options: argparse.Namespace) -> int:
    has_started = sandbox.start()
    print(f"Kafka {'is up' if has_started else 'is already running'} at {sandbox.brokers} (pid {sandbox.pid})")
    print(f"  data: {sandbox.data_dir}\n  log:  {sandbox.log}")
    return ExitCode.DONE


def _down(sandbox: KafkaSandbox, options: argparse.Namespace) -> int:
    print("Kafka is stopped" if sandbox.stop() else "Kafka is not running")
    return ExitCode.DONE


def _status(sandbox: KafkaSandbox, options: argparse.Namespace) -> int:
    if sandbox.pid is None:
        print(f"Kafka is not running (data: {sandbox.data_dir}); python -m sandbox up starts it")
        return ExitCode.FAILED
    topics = measure_topics(sandbox.brokers)
    print(f"Kafka is up at {sandbox.brokers} (pid {sandbox.pid})")
    for name, size in sorted(topics.items()):
        print(f"  {name:<40} {size.partitions:>4} partitions {size.records:>12,} records")
    if not topics:
        print("  no topics yet; python -m sandbox produce fills one")
    return ExitCode.DONE


def _produce(sandbox: KafkaSandbox, options: argparse.Namespace) -> int:
    if not options.brokers and sandbox.pid is None:
        # Another program may listen on the port; do not produce to it.
        raise no_broker_error(sandbox.brokers)
    names = ("topic", "count", "invalid_ratio", "partitions", "seed", "start_time", "rate", "booked")
    print(produce(options.brokers or sandbox.brokers, **{name: getattr(options, name) for name in names}))
    return ExitCode.DONE


def _late_start(sandbox: KafkaSandbox, options: argparse.Namespace) -> int:
    print(choose_late_start(sandbox.brokers, options.topic, options.records))
    return ExitCode.DONE


def _wait(sandbox: KafkaSandbox, options: argparse.Namespace) -> int:
    wait_for_clock(sandbox.brokers, options.topic)
    return ExitCode.DONE


def _run_s3(options: argparse.Namespace) -> int:
    sandbox = S3Sandbox(options.data_dir, options.port)
    if options.action == "down":
        print("S3 is stopped" if sandbox.stop() else "S3 is not running")
        return ExitCode.DONE
    has_started = sandbox.start()
    print(f"S3 {'is up' if has_started else 'is already running'} at {sandbox.endpoint} (pid {sandbox.pid})")
    print(f"  data:   {sandbox.data_dir}\n  bucket: s3://bronze")
    print("To use it, set:\n" + "\n".join(f"  export {name}={value}" for name, value in sandbox.environment.items()))
    return ExitCode.DONE


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.CONFIG, f"{self.prog}: {message}\n")


def _build_parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--data-dir", help="folder of the broker (default: SANDBOX_DATA_DIR, otherwise data/sandbox)")
    common.add_argument(
        "--port", type=int, help="port of the broker, 0 for a free one (default: SANDBOX_PORT, otherwise 9092)"
    )
    parser = _Parser(prog="sandbox", description="A single-node Apache Kafka without Docker, and sample events.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|status|produce|late-start|wait|s3")
    commands.add_parser("up", parents=[common], help="start the broker if it is not running, and wait until it answers")
    commands.add_parser("down", parents=[common], help="stop the broker; topics and records stay")
    commands.add_parser("status", parents=[common], help="show topics and record counts; exit code 1 if not up")
    _add_produce(commands.add_parser("produce", parents=[common], help="produce sample events to a topic"))
    late = commands.add_parser("late-start", parents=[common], help="print starting offsets that skip some records")
    late.add_argument("--records", type=int, default=500, help="of the largest partition (default: %(default)s)")
    wait = commands.add_parser("wait", parents=[common], help="wait until no record is stamped later than now")
    s3 = commands.add_parser("s3", help="start or stop an S3 server, to try tables in object storage")
    s3.add_argument("action", choices=["up", "down"])
    s3.add_argument("--data-dir", help="folder of the server (default: s3 in SANDBOX_DATA_DIR or data/sandbox)")
    s3.add_argument("--port", type=int, help="port, 0 for a free one (default: SANDBOX_S3_PORT, otherwise 9000)")
    for command in (late, wait):
        command.add_argument("--topic", default=TOPIC, help="default: %(default)s")
    return parser


def _add_produce(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--brokers", help="host:port (default: the sandbox's)")
    add("--topic", default=TOPIC, help="topic, created if it is missing (default: %(default)s)")
    add("--partitions", type=int, default=8, help="partitions of a new topic (default: %(default)s)")
    add("--count", type=int, default=20_000, help="number of records (default: %(default)s)")
    add("--invalid-ratio", type=float, default=0.01, help="share of invalid records, 0 to 1 (default: %(default)s)")
    add(
        "--seed",
        type=int,
        help="seed of the events (default: the number of records in the topic)",
    )
    add(
        "--start-time",
        type=_parse_time,
        help="ISO 8601 with a zone (default: the events end about now)",
    )
    add("--rate", type=float, default=0.0, help="records per second (default: 0, no limit)")
    add(
        "--booked",
        type=int,
        default=0,
        help=f"further records, stamped a day in advance; invalid for {CLOCK_AHEAD.seconds} s (default: 0)",
    )


def _parse_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2025-01-31T12:00:00Z") from None


if __name__ == "__main__":
    sys.exit(main())
