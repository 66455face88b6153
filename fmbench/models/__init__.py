"""The models: one file per architecture, named like its option in `conf/model/`.

What several share stands in `blocks` and `checks`.

Every model is a plain `nn.Module` (or a function returning one) with keyword arguments. It takes
float images (N, channels, H, W) and returns logits (N, classes). `channels` and `classes`, and
`image_size` (height, width) where a layer depends on it, are what the images decide. Nothing is
imported here, so that naming a model costs nothing until it is built.
"""
