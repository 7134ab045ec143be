"""Our attention in other packages' places for it: opt-in, and each hook can be removed again.

`hugging_face` makes it an ``attn_implementation`` of transformers, `flash_attention` what torch's own
``scaled_dot_product_attention`` runs. Nothing here is imported or changed by ``import neurokern``.
"""
