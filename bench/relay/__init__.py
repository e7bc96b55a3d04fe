"""The relay's benchmark: what a proxy's CPU, memory and delay cost per request and per chunk.

`command` is the command line; `session` runs targets and workloads in turn; `targets` are the
proxies, `peers` installs the ones to compare with, `children` keeps processes; `fake` is the
replica behind them (`answers` its bytes, `steps` its engine's clock) and `load` the client before
them, both on `poll_loop`; `workloads` is what is sent and `drive` how it is driven;
`procstat` reads CPU and memory; `figures` is the arithmetic, `report` the tables, `profiling` the
stacks, `machine` where it ran.
"""
