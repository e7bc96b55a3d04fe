"""Reports of a load run: what its records say, as a table, files in known shapes and a page.

`run` is what comes in; `measures` defines what is measured of a request, `statistics` and
`intervals` are the arithmetic, `metrics` puts the figures of a run together from `outcomes`,
`goodput`, `server_facts`, `probes` and `warning`. `table` and `sweep` (with `layout`) print,
`genai_perf_files` and `aiperf_files` write those tools' files, `html` the page with the charts that
`plots` chooses and `svg` draws; `write` puts all of it on disk and reads runs back. `compare` puts
runs side by side (`compare_figures` says which figures), `compare_files` reads and writes for it,
`command` is its command line.
"""
