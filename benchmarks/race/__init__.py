"""The race: this project and the tools that people use, downloading the same candles from the same sandbox exchange.

``make race`` runs it and writes the results into ``docs/race.md``. How it measures:

- The sandbox is a process of its own, with round trips of 100 ms and Binance's weight limits. It has built its files
  and rendered its candles before the first tool starts. It speaks plain HTTP, so nobody pays for TLS.
- Each tool has a virtual environment of its own below ``.race/``, with the newest release of the package index at the
  time of the installation. It is pointed at the sandbox by its own settings; see :mod:`benchmarks.race.drivers`.
- Each run is a new process in an empty folder. Wall time and CPU time (user and system, child processes included)
  begin with the process. They end when the tool has delivered: with the process if it writes files, and with the return
  of its call if it returns rows. CPU time is the robust figure; wall time suffers from whatever else the machine does.
- Memory is the peak of the proportional set size (on Linux; elsewhere the resident set size) of the process and its
  children, sampled.
- Requests, weight and rejections are those that the sandbox counted.
- The rows are compared, value by value, with the closed form from which the sandbox computes its candles.
- Then each tool downloads once more for each planted hole. A tool noticed a hole if it repaired it, returned a report,
  stopped with an error, or printed an alarming line that it does not print otherwise.

What does not belong here: the speed of this project beside its own targets, which is :mod:`benchmarks.run`.
"""
