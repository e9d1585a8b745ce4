"""Which operators torch-neuron compiles: facts from AWS's release notes; the partitioner asks here."""

from typing import List

# The union of "Added support for new operators" over all torch-neuron releases, less what was removed again
# (aten::embedding: "does not meet performance criteria").
SUPPORTED = frozenset(
    "aten::" + name
    for name in (
        "Int ScalarImplicit __and__ _convolution _convolution_mode _shape_as_tensor _weight_norm abs "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d add add_ addmm all "
        "amax amin any arange argmax argmin avg_pool2d baddbmm batch_norm bmm broadcast_tensors broadcast_to "
        "bucketize cat ceil chunk clamp clamp_max clamp_min clip clone constant_pad_nd contiguous cos detach "
        "div dot dropout einsum empty empty_like eq erf exp expand expand_as eye fill_ flatten flip floor "
        "floor_divide full full_like ge gelu group_norm gt hardsigmoid hardswish hardtanh hardtanh_ "
        "index_select instance_norm layer_norm le leaky_relu linear log log2 log_softmax logical_and "
        "logical_not logical_or logical_xor lt masked_fill matmul max max_pool2d mean meshgrid min mm movedim "
        "mul mv ne neg new_empty new_ones norm numel one_hot ones ones_like permute pixel_shuffle pow prelu "
        "reciprocal reflection_pad2d relu relu_ remainder repeat repeat_interleave reshape roll rsqrt rsub "
        "select sigmoid silu sin size slice softmax softplus split split_with_sizes sqrt squeeze stack sub "
        "sum t tanh tensor_split tensordot threshold to topk transpose tril triu true_divide trunc type_as "
        "unbind unsqueeze upsample_bilinear2d upsample_nearest2d values view where zero_ zeros zeros_like "
        "isnan"
    ).split()
)
SUPPORTED_PRIMITIVES = frozenset(
    "prim::" + name
    for name in "Constant DictConstruct GetAttr ImplicitTensorToNum ListConstruct ListUnpack NumToTensor "
    "TupleConstruct TupleUnpack".split()
)

# Their operands are what --fast-math casts.
MATRIX_PRODUCTS = frozenset(
    "aten::" + name
    for name in "linear matmul mm bmm addmm baddbmm mv dot einsum tensordot _convolution _convolution_mode".split()
)
# A relayout moves data on chip through the matrix engine when --fast-math asks for fast-relayout.
RELAYOUTS = frozenset("aten::" + name for name in "transpose permute t movedim".split())

# Work worth going to the device for: what surrounds it on the way in stays with the host's embeddings.
ANCHORS = MATRIX_PRODUCTS | frozenset(
    "aten::" + name
    for name in (
        "layer_norm group_norm batch_norm instance_norm softmax log_softmax gelu relu relu_ tanh sigmoid erf silu"
    ).split()
)


def supported_operations() -> List[str]:
    """What ``torch.neuron.get_supported_operations()`` answers, primitives included."""
    return sorted(SUPPORTED | SUPPORTED_PRIMITIVES)
