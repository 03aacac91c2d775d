"""Self-contained HTML reports: one file, no network, plots as inline SVG.

`rlmemo.report.page` holds the page's parts, `figures` the plots, `evaluation` turns an
`rlmemo.evaluation.evaluate.Evaluation` into sections that the benchmark's and the trainers' reports share.
"""
