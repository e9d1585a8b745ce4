"""What tools/measure_server measures of ``neuronbert serve``: a module for each measurement.

served      a running server
asking      the requests: bodies, and what is right for each
client      a client of keep-alive connections that costs little
loads       closed and open loops of such clients
hey         the load generator of that name
resources   what its main process holds, and whether that grows
goals       what a figure should be, and the table
overhead    beside Runner.submit, and beside other servers (``peers``)
throughput  beside the engine, and with repeated requests and the cache
overload    four times as much as can be answered
chaos       workers killed, artifacts reloaded, clients that go away
start       from the process's start to ready
"""
