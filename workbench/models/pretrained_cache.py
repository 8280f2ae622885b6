"""A compressed cache for transformers models: pass it as ``past_key_values``. transformers is imported when called."""

from workbench.models.compression.gear import GearCache, GearConfig

__all__ = ["gear_cache"]


def gear_cache(cfg=None):
    """Return an empty cache for one generation that keeps keys and values as GEAR does.

    The prompt's attention sees exact keys and values; later tokens see what the compressed cache stands for, which is
    made dense for the model's own attention in each step. So it shows a model's quality and bytes at any setting, and
    not the speed of the fused step (`GearCache.attend`).

    Parameters
    ----------
    cfg : GearConfig; the default one unless given.

    Returns
    -------
    A ``transformers.Cache``. ``cache.layers[i].gear`` is the `GearCache` of layer i.

    Raises
    ------
    ImportError : transformers is missing.

    Examples
    --------
    >>> model.generate(**tokenizer(text, return_tensors="pt"), past_key_values=gear_cache(GearConfig(bits=2)))
    """
    try:
        from transformers.cache_utils import Cache, CacheLayerMixin
    except ImportError as error:
        raise ImportError(
            "gear_cache: transformers is not installed; pip install 'sparse-workbench[models]', or decode the embedded "
            "model with workbench.models.compression.gear_decoding"
        ) from error
    import torch

    cfg = cfg or GearConfig()

    class GearLayer(CacheLayerMixin):
        is_sliding = False

        def __init__(self, **_):
            super().__init__()
            self.gear = GearCache(cfg)

        def lazy_initialization(self, key_states, value_states):
            self.is_initialized = True

        def update(self, key_states, value_states, *_, **__):
            self.is_initialized = True
            if not self.gear.length:
                self.gear.prefill(key_states, value_states)
                return key_states, value_states
            self.gear.append(key_states, value_states)
            return tuple(torch.from_numpy(self.gear.dense(kind)).to(key_states) for kind in ("key", "value"))

        def get_seq_length(self):
            return self.gear.length

        def get_mask_sizes(self, query_length):
            return self.gear.length + query_length, 0

        def get_max_length(self):
            return -1

        def reset(self):
            self.gear = GearCache(cfg)

        def reorder_cache(self, beam_idx):
            raise ValueError("gear_cache: compressed caches cannot be reordered; generate with num_beams=1")

    return Cache(layer_class_to_replicate=GearLayer)
