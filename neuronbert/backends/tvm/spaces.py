"""The schedules that tuning.py chooses among: MetaSchedule's own, and for products tiles that fit the registers.

MetaSchedule's space for a product is large, and few of its points are fast: some hundred measurements find what the
tiles here have among their first ten.
"""

from typing import Any, Dict, List

from neuronbert.backends.tvm.cpu import Cpu
from neuronbert.hardware.libraries import optional_imports

with optional_imports("tvm"):
    from tvm.ir.utils import derived_object
    from tvm.s_tir import Schedule, meta_schedule

TILE_ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12)
TILE_VECTORS = (1, 2, 3, 4, 6)
UNROLLED = (1, 2, 4, 8)  # steps of the sum
FEWEST_SUMS = 4  # vectors summed at once: with fewer, each waits for the one before


def space_for(module: Any, cpu: Cpu) -> Any:
    """The space of the one function in ``module``."""
    rules, postprocs = meta_schedule.schedule_rule, meta_schedule.postproc
    if not _has_product(module, cpu):
        # Without RewriteLayout: only a product's constants are worth another layout.
        return meta_schedule.space_generator.PostOrderApply(
            sch_rules="llvm",
            postprocs=[
                postprocs.DisallowDynamicLoop(),
                postprocs.RewriteParallelVectorizeUnroll(),
                postprocs.RewriteReductionBlock(),
            ],
            mutator_probs="llvm",
        )
    inlined = rules.AutoInline(
        into_producer=False,
        into_consumer=True,
        inline_const_tensor=True,
        disallow_if_then_else=True,
        require_injective=True,
        require_ordered=True,
    )
    return meta_schedule.space_generator.PostOrderApply(
        sch_rules=[rules.InlineConstantScalars(), inlined, ProductRule(cpu)],
        postprocs=[postprocs.RewriteLayout()],
        mutator_probs={},
    )


def _has_product(module: Any, cpu: Cpu) -> bool:
    schedule = Schedule(module)
    return any(_is_product(schedule, block, cpu) for block in schedule.get_child_blocks(schedule.get_sblock("root")))


def _is_product(schedule: Any, block: Any, cpu: Cpu) -> bool:
    if "matmul" not in schedule.get(block).name_hint:
        return False
    rows, columns, _ = _extents(schedule, block)[-3:]
    return bool(_tiles(rows, columns, cpu))


def _extents(schedule: Any, block: Any) -> List[int]:
    return [int(schedule.get(loop).extent) for loop in schedule.get_loops(block)]


def _tiles(rows: int, columns: int, cpu: Cpu) -> Dict[int, List[int]]:
    """The tiles that a product of so many rows and columns can be cut into: vectors of a row → numbers of rows."""
    tiles = {
        vectors: [
            height
            for height in TILE_ROWS
            if rows % height == 0 and FEWEST_SUMS <= height * vectors <= cpu.registers - vectors - 1
        ]
        for vectors in TILE_VECTORS
        if columns % (vectors * cpu.lanes) == 0
    }
    return {vectors: heights for vectors, heights in tiles.items() if heights}


@derived_object
class ProductRule(meta_schedule.schedule_rule.PyScheduleRule):  # type: ignore[misc]
    """Cuts a product into tiles whose sums stay in registers, threads taking tiles."""

    def __init__(self, cpu: Cpu):
        super().__init__()
        self.cpu = cpu

    def _initialize_with_tune_context(self, context: Any) -> None:
        """Nothing: the rule knows its CPU."""

    def apply(self, schedule: Any, block: Any) -> List[Any]:
        """A schedule for each width of a tile where ``block`` is a product; else ``schedule`` as it is."""
        if not _is_product(schedule, block, self.cpu):
            return [schedule]
        rows, columns, _ = _extents(schedule, block)[-3:]
        tiles = _tiles(rows, columns, self.cpu)
        return [_cut(schedule.copy(), block, vectors * self.cpu.lanes, tiles[vectors], self.cpu) for vectors in tiles]

    def clone(self) -> "ProductRule":
        return ProductRule(self.cpu)


def _cut(schedule: Any, block: Any, width: int, heights: List[int], cpu: Cpu) -> Any:
    """``schedule`` with ``block`` in tiles of ``width`` columns, and of a number of rows that is sampled."""
    height = _sampled(schedule, heights)
    unrolled = _sampled(schedule, [steps for steps in UNROLLED if _extents(schedule, block)[-1] % steps == 0])
    result = _result_of(schedule, block)
    # A panel of columns is read once, for all rows: threads begin with its first rows.
    *batch, over_rows, over_columns = schedule.get_loops(result)
    panels, columns_in = schedule.split(over_columns, [None, width])
    strips, rows_in = schedule.split(over_rows, [None, height])
    schedule.reorder(panels, strips, rows_in, columns_in)
    tile = schedule.fuse(*batch, panels, strips)
    schedule.parallel(tile)
    schedule.unroll(rows_in)
    _vectorize(schedule, columns_in, cpu)
    schedule.compute_at(block, tile, preserve_unit_loops=True)
    schedule.set_scope(block, 0, "local")
    *_, rows_in, columns_in, sums = schedule.get_loops(block)
    outer, inner = schedule.split(sums, [None, unrolled])
    schedule.reorder(outer, inner, rows_in, columns_in)
    schedule.unroll(inner)
    schedule.unroll(rows_in)
    _vectorize(schedule, columns_in, cpu)
    schedule.decompose_reduction(block, outer)
    return schedule


def _result_of(schedule: Any, block: Any) -> Any:
    """The block that writes what is computed of the product: what was fused with it, or a copy."""
    consumers = schedule.get_consumers(block)
    return consumers[0] if consumers else schedule.cache_write(block, 0, "global")


def _vectorize(schedule: Any, loop: Any, cpu: Cpu) -> None:
    vectors, lanes = schedule.split(loop, [None, cpu.lanes])
    schedule.unroll(vectors)
    schedule.vectorize(lanes)


def _sampled(schedule: Any, values: List[int]) -> Any:
    return schedule.sample_categorical(values, [1.0 / len(values)] * len(values))
