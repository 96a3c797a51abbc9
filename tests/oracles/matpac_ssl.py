"""MATPAC and MATPAC++ pre-training in plain PyTorch, the reference of tests and a benchmark.

Names are those of the published training checkpoint. The patch order is an argument.
"""

import copy
import math

import torch
import torch.nn.functional as F
from oracles.torch_modules import PATCH, ROWS, _Blocks, _PatchEmbed, sincos_positions
from torch import nn

FULL_SIZES = {
    "encoder": {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4},
    "predictor": {
        "decoder_embed_dim": 512,
        "decoder_depth": 8,
        "decoder_num_heads": 16,
        "mlp_ratio": 4,
    },
    "class_head": {"head_dim_out": 2048, "hidden_dim": 2048, "bottleneck_dim": 256},
    "n_head": 5,
    "n_t": 608,
}


class _Decoder(nn.Module):
    def __init__(self, embed_dim, decoder_embed_dim, decoder_depth, decoder_num_heads, mlp_ratio):
        super().__init__()
        width = decoder_embed_dim
        blocks = _Blocks(width, decoder_depth, decoder_num_heads, mlp_ratio)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_embed = nn.Linear(embed_dim, width)
        self.decoder_blocks, self.decoder_norm = blocks.blocks, blocks.norm
        self.decoder_pred = nn.Linear(width, embed_dim)


class _NormedLinear(nn.Module):
    """A linear layer without bias under torch's weight_norm."""

    def __init__(self, width, classes):
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(width, classes).weight.detach())
        self.weight_g = nn.Parameter(torch.ones(classes, 1))

    def forward(self, x):
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))


class _ClassHead(nn.Module):
    def __init__(self, width, head_dim_out, hidden_dim, bottleneck_dim):
        super().__init__()
        layers = [nn.Linear(width, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, hidden_dim)]
        self.mlp = nn.Sequential(*layers, nn.GELU(), nn.Linear(hidden_dim, bottleneck_dim))
        self.last_layer = _NormedLinear(bottleneck_dim, head_dim_out)

    def forward(self, x):
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class _Heads(nn.Module):
    def __init__(self, width, embed_dim, count):
        super().__init__()
        self.mcl_heads = nn.ModuleList(nn.Linear(width, embed_dim) for _ in range(count))


class _Centre(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("center", torch.zeros(1, 1, classes))


class SelfSupervised(nn.Module):
    """Student, teachers and centre; `n_head` 1 is MATPAC."""

    def __init__(self, encoder, predictor, class_head, n_head, n_t, mask_ratio=0.7):
        super().__init__()
        width, columns = encoder["embed_dim"], n_t // PATCH
        sizes = (width, encoder["depth"], encoder["num_heads"], encoder["mlp_ratio"])
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.patch_embed = _PatchEmbed(width)
        self.student_encoder = _Blocks(*sizes)
        self.decoder = _Decoder(width, **predictor)
        if n_head > 1:
            self.mcl_heads = _Heads(predictor["decoder_embed_dim"], width, n_head)
        self.cls_student_head = _ClassHead(width, **class_head)
        self.cls_head_loss = _Centre(class_head["head_dim_out"])
        self.teacher = _Blocks(*sizes).requires_grad_(False)
        self.class_teacher = copy.deepcopy(self.cls_student_head).requires_grad_(False)
        self.register_buffer("pos_embed", sincos_positions(ROWS, columns, width))
        positions = sincos_positions(ROWS, columns, predictor["decoder_embed_dim"])
        self.decoder.register_buffer("decoder_pos_embed", positions)
        self.visible = int(ROWS * columns * (1 - mask_ratio))

    def load_published(self, content):
        """Loads a training checkpoint's state dict with its `_ema` and `_cls_head_ema`."""
        student = {key: value for key, value in content.items() if not key.endswith("_ema")}
        missing, unexpected = self.load_state_dict(student, strict=False)
        assert not unexpected
        assert {key.split(".")[0] for key in missing} == {"teacher", "class_teacher"}
        self.teacher.load_state_dict(content["_ema"])
        self.class_teacher.load_state_dict(content["_cls_head_ema"])
        return self

    def _encode(self, blocks, patches):
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches), -1, -1)
        return blocks(torch.cat([first, patches], dim=1))[-1]

    def _predict(self, seen, order):
        x = self.decoder.decoder_embed(seen)
        count = order.shape[1] - self.visible
        tokens = self.decoder.mask_token.expand(len(x), count, -1)
        back = order.argsort(1)[..., None].expand(-1, -1, x.shape[-1])
        patches = torch.cat([x[:, 1:], tokens], dim=1).gather(1, back)
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder.decoder_pos_embed
        for block in self.decoder.decoder_blocks:
            x = block(x)
        x = self.decoder.decoder_norm(x)[:, 1:]
        x = x.gather(1, order[:, self.visible :, None].expand(-1, -1, x.shape[-1]))
        if hasattr(self, "mcl_heads"):
            return torch.stack([head(x) for head in self.mcl_heads.mcl_heads], dim=2)
        return self.decoder.decoder_pred(x)[:, :, None]

    def forward(self, image, order, step, warmup=9827):
        """Returns both losses of each masked patch `(B, M)`, and the teacher's mean probability.

        `image` is `(B, 80, frames)`, `order` `(B, patches)`.
        """
        patches = self.patch_embed(image) + self.pos_embed[:, 1:]
        shuffled = patches.gather(1, order[..., None].expand_as(patches))
        visible, masked = shuffled[:, : self.visible], shuffled[:, self.visible :]
        hypotheses = self._predict(self._encode(self.student_encoder, visible), order)
        with torch.no_grad():
            targets = self._encode(self.teacher, masked)[:, 1:]
        losses = 2 - 2 * F.cosine_similarity(hypotheses, targets[:, :, None], dim=-1, eps=1e-12)
        best = losses.argmin(-1)
        index = best[..., None, None].expand(-1, -1, 1, hypotheses.shape[-1])
        winner = hypotheses.gather(2, index)[:, :, 0]
        temperature = 0.1 * 0.99997**step
        if hypotheses.shape[2] == 1:
            prediction = losses[..., 0]
        elif temperature > 1e-4:
            prediction = ((-losses / temperature).softmax(-1).detach() * losses).sum(-1)
        else:
            prediction = losses.min(-1).values
        with torch.no_grad():
            teacher_temperature = 0.04 + (0.07 - 0.04) * min(step / warmup, 1)
            logits = self.class_teacher(targets)
            target = ((logits - self.cls_head_loss.center) / teacher_temperature).softmax(-1)
        log_probs = (self.cls_student_head(winner) / 0.1).log_softmax(-1)
        return prediction, -(target * log_probs).sum(-1), target.mean((0, 1))

    @torch.no_grad()
    def teach(self, mean_probs, step, steps):
        """Updates teachers and centre, before the student's update."""
        pairs = (
            (self.teacher, self.student_encoder, 0.99995, 0.99999),
            (self.class_teacher, self.cls_student_head, 0.998, 1.0),
        )
        for teacher, student, start, end in pairs:
            decay = 0.99999 if step >= steps else end - (end - start) * (1 - step / steps)
            if step == 0 or decay >= 1:
                continue
            for a, b in zip(teacher.parameters(), student.parameters(), strict=True):
                a.mul_(decay).add_(b, alpha=1 - decay)
        self.cls_head_loss.center.mul_(0.9).add_(mean_probs, alpha=0.1)


def make_optimizer(model, rate=3e-4):
    """Returns AdamW as published."""
    # With several heads the single one has no gradient, so AdamW skips it.
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.05)


def published_rate(step, steps, warmup, peak=3e-4):
    """Returns fairseq's cosine schedule at an update."""
    if step < warmup:
        return peak * step / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train_step(model, optimiser, image, order, step, steps, clip=3.0):
    """Does one update; returns the means of both losses."""
    prediction, classes, mean_probs = model(image, order, step)
    loss = 0.5 * prediction.mean() + 0.5 * classes.mean()
    model.teach(mean_probs, step, steps)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], clip)
    optimiser.step()
    return prediction.mean().item(), classes.mean().item()
