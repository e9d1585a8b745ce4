"""What tools/measure_server measures of ``neuronbert serve``: a module for each measurement.

served      a running server
asking      the requests: bodies, and what is right for each
client      a client of keep-alive connections that costs little
loads       closed and open loops of such clients
hey         the load generator of that name
goals       what a figure should be, and the table
resources   what its main process holds, and whether that grows
verdict     what may be said to anybody
fuzzing     schemathesis, which asks what /openapi.json says
broken      broken HTTP messages
slow        clients that send a byte a second
overhead    beside Runner.submit, and beside other servers (``peers``)
throughput  beside the engine, and with repeated requests and the cache
overload    four times as much as can be answered
chaos       workers killed, artifacts reloaded, clients that go away
hostile     fuzzing, broken messages and slow clients, at one server
start       from the process's start to ready
"""
