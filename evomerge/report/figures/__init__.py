"""The figures of the HTML report: pure functions from what a run recorded to static SVG."""
