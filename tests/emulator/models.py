"""Small models that are traced in tests: a one-layer BERT in miniature, and shapes that a BERT does not have."""

import io

import torch

BATCH, LENGTH, WIDTH, WORDS = 2, 4, 8, 11


class TinyBert(torch.nn.Module):
    """Three embeddings, one attention, one feed-forward, a question-answering head."""

    def __init__(self, layers=1):
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.places = torch.nn.Embedding(LENGTH, WIDTH)
        self.kinds = torch.nn.Embedding(2, WIDTH)
        self.register_buffer("position_ids", torch.arange(LENGTH)[None])
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4 * layers))
        self.answer = torch.nn.Linear(WIDTH, 2)

    def forward(self, input_ids, attention_mask, token_type_ids):
        embedded = self.words(input_ids) + self.places(self.position_ids) + self.kinds(token_type_ids)
        mask = (1.0 - attention_mask[:, None, None, :].to(embedded.dtype)) * -10000.0
        state = self.norm(embedded)
        for index in range(0, len(self.layers), 4):
            query, key, value, out = self.layers[index : index + 4]
            scores = heads(query(state)) @ heads(key(state)).transpose(-1, -2) / 2 + mask
            mixed = torch.softmax(scores, dim=-1) @ heads(value(state))
            state = torch.nn.functional.gelu(out(mixed.permute(0, 2, 1, 3).reshape(state.shape))) + state
        start, end = self.answer(state).split(1, dim=-1)
        return start.squeeze(-1), end.squeeze(-1)


def heads(state):
    return state.view(state.size(0), state.size(1), 2, WIDTH // 2).permute(0, 2, 1, 3)


def tiny_inputs(batch=BATCH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, LENGTH, dtype=torch.long)
    mask[:, LENGTH - 1] = 0
    kinds = torch.zeros(batch, LENGTH, dtype=torch.long)
    kinds[:, 2:] = 1
    return torch.randint(0, WORDS, (batch, LENGTH), generator=generator), mask, kinds


class Dense(torch.nn.Module):
    """Linear layers only; ``middle`` is put between the halves."""

    def __init__(self, before=2, after=2, middle=None, width=WIDTH):
        super().__init__()
        torch.manual_seed(1)
        self.before = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(before))
        self.after = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(after))
        self.middle = middle

    def forward(self, state):
        for layer in self.before:
            state = torch.tanh(layer(state))
        if self.middle is not None:
            state = self.middle(state)
        for layer in self.after:
            state = torch.tanh(layer(state))
        return state


def unsupported(state):
    """An operator that torch-neuron does not compile, in the middle of a model."""
    return torch.cumsum(state, dim=-1)


def neuron_calls(module):
    return [node for node in module.inlined_graph.nodes() if node.kind().startswith("neuron::forward")]


def largest_difference(one, other):
    return max((left - right).abs().max().item() for left, right in zip(one, other))


def reload(module):
    """The module as a fresh torch.jit.load sees it."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)
