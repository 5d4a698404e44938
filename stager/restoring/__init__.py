"""The gate before a production run: restore manifests made true, and seen to be true.

`asked` has the manifests, `planning` what they come to before anything is done; `gate` has them carried out, and
`judging` says whether everything is in place and proven.
"""
