"""Requests to the outside: the guard that keeps them out of the inside, and the client.

urls        pure: a URL, read once into what will be connected to
addresses   pure: which addresses are outside
guard       pure: what `allow` and `deny` say of a host and its addresses
resolve     names to addresses, in bounded time
dialing     connections to addresses that were checked, and to no others
faults      what goes wrong at the other end, and the bound on every wait for it
connections one request over such a connection, kept or new, by httpcore
exchange    one request and its answer, by httpx
decode      pure: compressed bodies, unpacked within a bound
redirects   pure: what the next request is after a redirect
limits      how many requests go on at once
client      `Client`: the answer at the end of the redirects, within its limits
streams     what tools need of it beyond `services.Web`
"""
