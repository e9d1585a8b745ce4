"""Named ways to break the emulator: each contract test must fail under the one that breaks its behaviour.

A mutation rewrites the source of one function and swaps its code in place, so that every reference to the
function, in whatever module, is broken at once. Child processes take theirs from MUTATION in the environment.
"""
# ruff: noqa: E501

import contextlib
import importlib
import inspect
import os
import textwrap

VARIABLE = "NEURONBERT_TEST_MUTATION"

# name: (module within neuronbert.emulator, function, what is there, what stands there instead)
MUTATIONS = {}


def mutation(name, target, old, new):
    assert name not in MUTATIONS, name
    module, function = target.split(":")
    MUTATIONS[name] = (module, function, old, new)


@contextlib.contextmanager
def broken(name):
    """Inside, the emulator has the defect; child processes too."""
    function, code = _mutated(*MUTATIONS[name])
    original = function.__code__
    function.__code__ = code
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        function.__code__ = original
        del os.environ[VARIABLE]


def break_this_process():
    """For child processes: the defect that the environment names, if any."""
    name = os.environ.get(VARIABLE)
    if name:
        function, code = _mutated(*MUTATIONS[name])
        function.__code__ = code


def _mutated(module_name, function_name, old, new):
    module = importlib.import_module(f"neuronbert.emulator.{module_name}")
    function = _plain(module, function_name)
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("def "))
    source = "\n".join(lines[start:])
    assert source.count(old) == 1, f"{function_name} does not hold {old!r} exactly once"
    scope = {}
    exec(compile(source.replace(old, new), inspect.getsourcefile(function), "exec"), function.__globals__, scope)
    return function, scope[function.__name__].__code__


def _plain(module, dotted):
    owner, _, name = dotted.rpartition(".")
    holder = getattr(module, owner) if owner else module
    found = inspect.getattr_static(holder, name)
    found = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
    return inspect.unwrap(found)


# fmt: off
# ---------------------------------------------------------------------------- §1.1 to §1.7: trace
mutation("tensor-not-wrapped", "tracing:trace_module", "(example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)", "tuple(example_inputs)")
mutation("no-neuron-operator", "tracing:_device_nodes", "return worth_compiling", "return frozenset()")
mutation("embedding-compiled", "partition:eligible_nodes", "if node.kind not in known or", "if node.kind == 'aten::embedding':\n            device_nodes.add(index)\n            on_device.update(node.outputs)\n        elif node.kind not in known or")
mutation("float64-on-device", "partition:_dtypes_allowed", "not in HOST_ONLY_DTYPES", "is not None")
mutation("int64-kept-off", "partition:_dtypes_allowed", "HOST_ONLY_DTYPES", "(torch.float64, torch.int64)")
mutation("compiler-args-ignored", "neuron_cc:_compile", "parse_arguments(arguments, shown)", "parse_arguments([], shown)")
mutation("compiler-args-once", "tracing:_compile_subgraph", "options.compiler_args,\n            folder", "options.compiler_args if subgraph.nodes[0] is program.nodes[1] else [],\n            folder")
mutation("no-timeout", "tracing:_compile_subgraph", 'raise subprocess.TimeoutExpired(" ".join(command), options.compiler_timeout) from None', "return b''")
mutation("workdir-empty", "tracing:_compile_subgraph", "if options.compiler_workdir is None:\n            shutil", "if True:\n            shutil")
mutation("builder-ignored", "tracing:_device_nodes", "options.subgraph_builder_function", "None")
mutation("segment-size-ignored", "partition:keep_segments", "size >= minimum_segment_size", "size >= 0")
mutation("fusion-ratio-ignored", "partition:keep_segments", "if dominant:", "if False:")
mutation("fusion-ratio-always", "partition:keep_segments", "[segment for segment in kept_segments if sizes[segment] > single_fusion_ratio_threshold * total]", "[max(kept_segments, key=sizes.get)]")
mutation("no-attribute-error", "tracing:_device_nodes", "if unsupported and not options.fallback:", "if False:")
mutation("one-subgraph", "partition:phases_of", "phase + 1 if device else phase", "phase")
mutation("static-batch-forced", "neuron_cc:_compile", "cores, dynamic_batch_size", "cores, False")
mutation("optimizations-ignored", "api:trace", 'arguments += ["--fp32-cast", "all-fp16"]', "pass")
mutation("kwargs-dropped", "tracing:trace_module", "torch.jit.trace(model, inputs, **named)", "torch.jit.trace(model, inputs)")
mutation("trace-unchecked", "tracing:trace_module", "torch.jit.trace(model, inputs, **named)", "torch.jit.trace(model, inputs, check_trace=False, **named)")
mutation("compiled-anyway", "api:trace", "(lambda node: False) if skip_compiler else subgraph_builder_function", "subgraph_builder_function")
mutation("not-a-script-module", "tracing:_assemble", "return torch.jit.trace(module, inputs, check_trace=False, strict=not _holds_dict(program.output))", "return module")
mutation("weights-not-inside", "neff:build_neff", "safetensors.torch.save(neff.tensors)", "safetensors.torch.save({})")
mutation("eager-load", "tracing:_assemble", "module = _Assembled", "compiled_ops._runtime.initialize()\n    module = _Assembled")
mutation("lazy-load", "jit_load:load", "compiled_ops.loaded(payload)", "pass")
mutation("nothing-compiled-passes", "tracing:trace_module", "raise RuntimeError(NOTHING_COMPILED)\n    trace_log", "return traced\n    trace_log")
mutation("cpu-trace-raises", "tracing:trace_module", "return traced\n    payloads", "raise RuntimeError('no')\n    payloads")
mutation("failed-segment-silent", "tracing:_compiled_or_fallen_back", "log.warning(", "(lambda *a: None)(")
mutation("failure-raises", "tracing:_compiled_or_fallen_back", "if not options.fallback:", "if True:")
mutation("failure-never-raises", "tracing:_compiled_or_fallen_back", "if not options.fallback:", "if False:")
mutation("any-pipeline-size", "neuron_cc:_compile", "if why:", "if False:")
mutation("half-unnoticed", "trace_log:after_compilation", "if percent <= 50:", "if False:")
mutation("compiler-always-there", "tracing:_compile_subgraph", 'if fault == "compiler-missing":', "if False:")
mutation("kill-unreported", "tracing:_compile_subgraph", 'log.info("Compile command returned: %s", error.returncode)', "pass")
mutation("kill-unexplained", "tracing:_compile_subgraph", "log.warning(CC_KILLED)", "pass")
mutation("other-address", "trace_log:before_compilation", "https://awsdocs-neuron.readthedocs-hosted.com", "https://github.com")
mutation("always-two-decimals", "trace_log:after_compilation", "round(percent, 2)", "f'{percent:.2f}'")
mutation("no-neuron-mention", "trace_log:before_compilation", '"There are %d ops of %d different types', '"%d of %d')
mutation("other-percentage", "trace_log:after_compilation", "percent = 100 * len(compiled) / max(1, before)", "percent = 100.0")
mutation("no-operator-list", "trace_log:after_compilation", "for kind in sorted(outside):", "for kind in ():")
mutation("all-supported-unsaid", "trace_log:before_compilation", "    else:\n        log.info(", "    else:\n        str(")
mutation("command-not-logged", "tracing:_compile_subgraph", 'log.info("Compiling with command line: \'%s\'", " ".join(command))', "pass")
mutation("arguments-last", "neuron_cc:command_line", '*arguments, "--verbose", "35"', '"--verbose", "35", *arguments')
mutation("command-unquoted", "tracing:_compile_subgraph", "map(shlex.quote, command)", "command")
mutation("io-config-empty", "neuron_cc:io_config", '"outputs": outputs', '"outputs": []')
mutation("embedding-sum-compiled", "partition:eligible_nodes", "if node.kind in ANCHORS or any(name in on_device for name in refs_in(node.arguments)):", "if True:")
mutation("analyze-silent", "api:analyze_model", "for kind in sorted(set(kinds) - set(supported)):", "for kind in ():")
mutation("analyze-miscounts", "api:_percentage", "({part} of {whole})", "({whole} of {whole})")
mutation("embedding-listed", "operators:supported_operations", "SUPPORTED | SUPPORTED_PRIMITIVES", "SUPPORTED | SUPPORTED_PRIMITIVES | {'aten::embedding'}")
mutation("always-available", "api:is_available", "return False", "return True")
# ---------------------------------------------------------------------------- §1.4, §1.5: batches
mutation("any-shape", "execution:LoadedProgram._check_inputs", "if tuple(tensor.shape)[fixed:] != spec.shape[fixed:] or tensor.dtype != spec.dtype:", "if False:")
mutation("mixed-batches", "execution:LoadedProgram._check_inputs", "if self.neff.dynamic_batch_size and len({self._rows([tensor]) for tensor in inputs}) > 1:", "if False:")
mutation("rows-lost", "execution:LoadedProgram.run_batches", "range(0, rows, size)", "range(0, size, size)")
mutation("one-worker", "data_parallel:DataParallel._prepare", "2 * len(self.device_ids)", "1 * len(self.device_ids)")
mutation("split-by-two", "data_parallel:DataParallel.forward", "max(1, rows // cores)", "max(1, rows // 2)")
mutation("dynamic-stays", "data_parallel:DataParallel.disable_dynamic_batching", "self._dynamic = False", "self._dynamic = True")
mutation("pipelines-accepted", "data_parallel:_require_single_cores", "if any(neff.pipeline_cores > 1 for neff in neffs):", "if False:")
mutation("device-names-refused", "data_parallel:_core_numbers", "int(match[1]) if match else device", "device")
mutation("anonymous-core", "data_parallel:DataParallel._run_piece", "Caught RuntimeError on neuroncore", "Caught RuntimeError on")
mutation("all-on-one-core", "data_parallel:DataParallel._make_copies", "Placement(core, 1)", "Placement(0, 1)")
mutation("no-dim-warning", "data_parallel:DataParallel._prepare", "warnings.warn(", "dict(warning=")
# ---------------------------------------------------------------------------- §1.8: placement
mutation("first-core-always", "placement:Placer._least_used", "key=lambda run: sum(self._used[core] for core in run)", "key=lambda run: run[0]")
mutation("groups-ignored", "placement:Placer.__init__", "_ranges(groups) if groups else []", "[]")
mutation("groups-in-order", "placement:Placer._least_used", "min(wide_enough, key=lambda index: self._group_used[index])", "wide_enough[0]")
mutation("wide-model-refused", "placement:Placer._least_used", "return range(width)", "raise NotEnoughCores('no group')")
mutation("one-replica", "placement:replica_starts", "range(count // width)", "range(1)")
mutation("no-round-robin", "loaded:LoadedModel.next_replica", "next(self._turn)", "0")
mutation("context-ignored", "jit_load:load", "if _placement == ANYWHERE:", "if True:")
mutation("context-leaks", "jit_load:placing", "_placement = before", "pass")
mutation("set-cores-ignored", "experimental:_place", "compiled_ops.place(payload, placement)", "pass")
mutation("any-count", "runtime:Runtime._place", "if wanted < width or wanted > self._placer.cores:", "if False:")
mutation("multicore-is-one", "experimental:set_multicore", "ALL_CORES", "1")
mutation("same-load-twice", "compiled_ops:loaded", "_load(payload, ANYWHERE)", "_load(payload, Placement(0, 1))")
mutation("nothing-unloaded", "runtime:Runtime.unload", "self._placer.release(replica.cores)", "pass")
# ---------------------------------------------------------------------------- §1.9: the compiler
mutation("prefixes-taken", "neuron_cc:_parser", "allow_abbrev=False", "allow_abbrev=True")
mutation("exclusives-taken", "neuron_cc:_fast_math", "if len(chosen) > 1:", "if False:")
mutation("default-none", "neuron_cc:_parser", 'default=["all"]', 'default=["none"]')
mutation("specific-loses", "neuron_cc:_fast_math", "next((value for value in values if value in CASTS), cast)", "cast")
mutation("fp32-cast-loses", "neuron_cc:parse_arguments", '"fp32-cast-" + parsed.fp32_cast if parsed.fp32_cast else cast', "cast")
mutation("fp32-products", "arithmetic:Arithmetic.call", "if node.kind in MATRIX_PRODUCTS:", "if False:")
mutation("cast-all-casts-less", "arithmetic:Arithmetic.call", "if self._policy.everything or relayout:", "if relayout:")
mutation("relayout-exact", "arithmetic:Arithmetic.call", "if self._policy.everything or relayout:", "if self._policy.everything:")
mutation("never-infinite", "arithmetic:Arithmetic.round", "if self._policy.saturate_infinity:", "if True:")
mutation("never-saturates", "arithmetic:Arithmetic.round", "if self._policy.saturate_infinity:", "if False:")
mutation("legacy-refused", "neuron_cc:_parser", '"--neuroncore-pipeline-cores", "--num-neuroncores"', '"--neuroncore-pipeline-cores"')
# ---------------------------------------------------------------------------- §2: the runtime
mutation("num-cores-wins", "nrt_settings:read_settings", "number = None if visible is not None else", "visible = None if asked else visible\n    number = None if visible is not None else")
mutation("gaps-allowed", "nrt_settings:_visible", "numbers != list(range(numbers[0], numbers[0] + len(numbers)))", "False")
mutation("beyond-allowed", "nrt_settings:_visible", "if numbers[-1] >= cores and", "if False and")
mutation("groups-beyond-given", "nrt_settings:read_settings", "if groups and given and sum(groups) > given:", "if False:")
mutation("groups-not-deprecated", "runtime:Runtime.initialize", "if os.environ.get(GROUP_SIZES):", "if False:")
mutation("zero-is-unset", "nrt_settings:read_settings", "groups and not named else", "groups else")
mutation("groups-take-all", "nrt_settings:read_settings", "sum(groups) if groups", "None if groups")
mutation("takes-one-core", "runtime:Runtime._reserve", "return self.registry.reserve_free(number)", "return self.registry.reserve_free(1)")
mutation("environment-read-again", "runtime:Runtime.initialize", "if self._nrt_settings is not None:\n            return", "if self._nrt_settings is not None:\n            self.registry.release()")
mutation("cores-shared", "reservation:CoreRegistry._is_free", "return False\n    finally", "return True\n    finally")
mutation("half-reserved", "reservation:CoreRegistry.reserve", "if len(free) < len(cores):", "if not free:")
mutation("half-reserved-free", "reservation:CoreRegistry.reserve_free", "raise CoresTaken(str(count), len(free))", "return self._take(sorted(free))")
mutation("count-as-range", "reservation:CoreRegistry.reserve_free", "str(count)", "f'nc0-nc{count - 1}'")
mutation("any-neighbours", "reservation:CoreRegistry.reserve_free", "if free.issuperset(run):", "if run[0] in free:")
mutation("children-keep-cores", "reservation:CoreRegistry._forget", "os.close(descriptor)", "pass")
mutation("fork-allowed", "runtime:Runtime.initialize", "if self._owner_pid != os.getpid():", "if False:")
mutation("other-cores-text", "reservation:taken_text", "NeuronCore(s) not available", "cores busy")
mutation("quiet-driver", "runtime:Runtime._strike_init", "nrt_log.NO_DRIVER", "'driver?'")
mutation("quiet-old-driver", "runtime:Runtime._strike_init", "nrt_log.OLD_DRIVER", "'driver?'")
mutation("other-line-form", "nrt_log:NrtLog.error", "{'ERROR':<8}{source:<40}", "{source}: ")
mutation("syslog-ignored", "nrt_log:NrtLog.error", "if self._to_console:", "if True:")
mutation("too-wide-quiet", "runtime:Runtime._refuse_width", "Could not find VNC id", "no VNC")
mutation("too-wide-status", "runtime:Runtime._place", "nrt_log.load_error(2)", "nrt_log.load_error(4)")
mutation("endless-memory", "device_memory:DeviceMemory.book", "if used[chip] > CHIP_BYTES:", "if False:")
mutation("own-memory-only", "runtime:Runtime._allocate", "view.held()", "[state for state in view.held() if state.core in self._cores]")
mutation("memory-unsaid", "nrt_log:NrtLog.refuse_memory", "neuron:mc_alloc: device mempool", "mempool")
mutation("no-timeout-error", "runtime:Runtime._strike_execute", "raise nrt_log.execute_error(5)", "return None")
mutation("timeout-not-waited", "runtime:Runtime._strike_execute", "time.sleep(self._nrt_settings.exec_timeout_s if self._nrt_settings else 0.0)", "pass")
mutation("no-numerical-error", "runtime:Runtime._strike_execute", "raise nrt_log.execute_error(1003)", "return None")
mutation("no-hang", "runtime:Runtime._strike_execute", 'while fault == "hang":', "while False:")
mutation("any-neff", "runtime:Runtime.load", "if program.neff.version != SUPPORTED_VERSION:", "if False:")
mutation("dead-runtime-raises", "runtime:Runtime._strike_execute", "return model.program.constant_outputs()", "raise nrt_log.execute_error(5)")
mutation("dead-runtime-silent", "runtime:Runtime.load", "print(nrt_log.DEAD_RUNTIME, file=sys.stderr, flush=True)", "pass")
mutation("nan-hidden", "runtime:Runtime.observed", 'if fault == "nan":', "if False:")
mutation("two-at-a-time", "execution:LoadedProgram.run_stages", "with cores[index] if cores else contextlib.nullcontext():", "with contextlib.nullcontext():")
mutation("stages-on-one-core", "runtime:Runtime._run", "[self._meters[core] for core in replica.cores]", "[self._meters[replica.cores[0]]] * len(replica.cores)")
mutation("unequal-stages", "neff:split_stages", "done * stages >= total * len(cuts)", "True")
# ---------------------------------------------------------------------------- §5.5: tools
mutation("no-holders", "tools:_device", "for pid, info in sorted(holders.items())", "for pid, info in ()")
mutation("no-chain", "tools:_device", "(chip - 1, chip + 1)", "()")
mutation("wrong-memory", "tools:_device", '"memory_size": CHIP_BYTES', '"memory_size": 8')
mutation("no-core-is-busy", "inference_counters:CoreMeter.utilization", "100 * min(1.0, share)", "0.0")
mutation("nan-uncounted", "tools:_errors", 'summary.get("completed_with_num_err", 0)', "0")
mutation("untagged", "tools:_process", 'mine[0].info.get("tag", "")', '""')
mutation("executions-uncounted", "inference_counters:InferenceCounters.completed", "+= 1", "+= 0")
mutation("all-cores-in-use", "tools:_process", 'state.held and state.info.get("pid") == pid', "True")
mutation("other-instance", "tools:neuron_monitor", '"instance_type": settings.instance', '"instance_type": ""')
