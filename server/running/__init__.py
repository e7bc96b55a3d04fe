"""Running apps: all that runs need, put together from the configuration, and one call that runs.

    async with open_services(config, catalog) as running:         # server.running.opening
        result = await running.run_app(app, {"q": "Why?"}, sink=sink)     # server.running.runs

`triolet run` and the HTTP APIs both go through here. Nothing of it is imported by a server that
serves no apps, and what is costly (workers, interpreters, parsers) starts with its first use.
"""
