"""Artifacts behind HTTP: ``neuronbert serve``. Only ``cli`` may import it.

In reading order, the way of a request:

serving             loads the models, and runs the process until a signal ends it
process             uvicorn, and how it ends
connections         one connection: bounds on heads and slow clients
writes              what a connection sends in one piece
application         every route in one router
endpoints           one route: lets the client in, sends the answer or the error, counts both
exchange            one request: what it asks of a runner, and where its time went
bodies              its body: read, unpacked, decoded
limits              how many rows and how much text it may need
waiting             how the loop waits for other threads: a runner's, and those that tokenise
caching             the same request again, or at the same time: answered without asking again
cache, shared_cache answers in this process, and in a Redis for several servers
bulk                many lines through a runner, behind those who wait for one answer
protocols           what clients speak, a module each
routes              what a protocol says of its routes
openapi             the description of all routes
tensors, columns    numbers and texts as the Open Inference Protocol sends them
clients             keys, and each client's share of the queue
models              a Runner for each artifact, by name
core_shares         which NeuronCores each of them has
failures            errors as statuses and headers
settings            the options
metrics, logs       what operators see
tracing             a trace of each request, for OpenTelemetry
page                what people see
"""
