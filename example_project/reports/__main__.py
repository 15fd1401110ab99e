"""``python -m example_project.reports``: make one report, or one every so many seconds."""

from __future__ import annotations

import argparse
import sys
import time

from example_project.reports.job import make_report, reader_engine, writer_engine


def main() -> None:
    """Run the job."""
    parser = argparse.ArgumentParser(prog="python -m example_project.reports", description=__doc__)
    parser.add_argument("--every", type=float, metavar="SECONDS", help="go on making reports until Ctrl-C")
    every: float | None = parser.parse_args().every
    reader, writer = reader_engine(), writer_engine()
    try:
        while True:
            report = make_report(reader, writer)
            sys.stdout.write(f"{report.orders} orders, {report.revenue} in all; stored by {report.server}\n")
            sys.stdout.flush()
            if every is None:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        pass
    finally:
        reader.dispose()
        writer.dispose()


if __name__ == "__main__":
    main()
