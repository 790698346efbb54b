"""stub"""
import torch.nn.functional as F
class Criterion:
    def __init__(self, label_smoothing=0., mixup=0.): self.ls=label_smoothing
    def __call__(self, model, video, label): return F.cross_entropy(model(video), label, label_smoothing=self.ls)
