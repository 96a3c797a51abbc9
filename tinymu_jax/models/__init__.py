"""The models: MATPAC++ encoder, projector, SmolLM2 decoder, and TinyMU, which combines them.

Letters of array axes in shape annotations, throughout the project:

    B  batch              N  query heads          F  mel bands
    T  query positions    K  key/value heads      A  audio vectors (160 ms each)
    S  key positions      H  head width           C  chunks or crops of audio
    D  model width        L  layers               P  patches of a log-mel
    M  output width       V  vocabulary           E  encoder output width

Parameters have one of two layouts, and every module accepts both:

    stacked   training and checkpoints: one array per weight for all layers, leading axis L
    unrolled  inference (`tinymu_jax.inference.param_layout`): one subtree per layer; the weights of
              linear layers with the same input are fused, and weights may be bfloat16 or int8
"""
