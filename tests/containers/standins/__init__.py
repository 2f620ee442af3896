"""Local images under the names of `compose.yaml`, for machines that can pull none.

Run `python -m containers.standins` (with `tests` on PYTHONPATH). Each folder holds one image;
`programs` gets what goes into them, `images` builds those that are missing.
"""
