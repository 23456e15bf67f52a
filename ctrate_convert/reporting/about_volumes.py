"""What is in the dataset: the sections of the page on its volumes."""

from __future__ import annotations

from collections import Counter

from ctrate_convert.looking.page import figure as picture_of
from ctrate_convert.looking.words import count, size
from ctrate_convert.reporting import volume_charts
from ctrate_convert.reporting.facts import NAMED, Facts
from ctrate_convert.reporting.markup import charts, figure, paragraph, table

_SHAPES = 8

NOTHING = "Nothing is converted yet."


def sizes(facts: Facts) -> str:
    """Return the stored sizes and the compression."""
    volumes = facts.volumes
    if not volumes.number:
        return paragraph(NOTHING)
    whole = sum(volumes.stored_bytes)
    return charts(
        [
            figure(
                volume_charts.sizes(volumes.stored_bytes),
                f"{count(volumes.number, 'stored volume')}, {size(whole)}.",
                "The array alone, as it lies in its shard.",
            ),
            figure(
                volume_charts.ratios(volumes.times_smaller),
                "Compression.",
                "Voxels in their source's type, over the stored array.",
            ),
            counted("Stored as", "type, encoding", volumes.stored_as),
        ]
    )


def errors(facts: Facts) -> str:
    """Return the errors, and what is known of Hounsfield units."""
    volumes = facts.volumes
    if not volumes.number:
        return paragraph(NOTHING)
    exact = sum(error == 0 for error in volumes.errors_hu)
    parts = []
    if exact < volumes.number:
        parts.append(
            figure(
                volume_charts.errors(volumes.errors_hu),
                "Volumes with an error.",
                f"{volumes.number - exact:,} volumes; the largest error is "
                f"{max(volumes.errors_hu):.3g} HU. {exact:,} more are exact.",
            )
        )
    else:
        parts.append(paragraph(f"All {volumes.number:,} volumes are stored without any error."))
    parts += [
        counted("Scale that the voxels show", "scale", volumes.intensities),
        counted("Evidence for Hounsfield units", "from", volumes.hu_from),
    ]
    unit = (
        "Errors are in Hounsfield units where the scale is known, in the source's unit elsewhere."
    )
    odd = f"{count(volumes.not_finite, 'volume')} with NaN or infinite voxels."
    return charts(parts) + paragraph(f"{unit} {odd}", "muted")


def geometry(facts: Facts) -> str:
    """Return shapes, spacings, grids and orientations."""
    volumes = facts.volumes
    if not volumes.number:
        return paragraph(NOTHING)
    parts = [
        _scattered(
            volume_charts.shapes(volumes.shapes) if volumes.shapes else "",
            "Shapes.", volumes.shapes.total(), volumes.number,
        ),
        _scattered(
            volume_charts.spacings(volumes.spacings_mm) if volumes.spacings_mm else "",
            "Spacings.", volumes.spacings_mm.total(), volumes.number,
        ),
    ]  # fmt: skip
    common = volumes.shapes.most_common(_SHAPES)
    if common:
        rows_ = [(" × ".join(map(str, shape)), f"{number:,}") for shape, number in common]
        title = f"Slices × rows × columns, {_SHAPES} most frequent of {len(volumes.shapes):,}"
        if len(volumes.shapes) <= _SHAPES:
            title = "Slices × rows × columns"
        parts.append(table(title, ("shape", ">volumes"), rows_))
    parts += [
        counted("Grid", "grid", volumes.grids),
        counted("Orientation of the array's axes", "orientation", volumes.orientations),
    ]
    told = f"In {count(volumes.contradictions, 'volume')} the table contradicts the array."
    return charts(parts) + paragraph(told, "muted")


def _scattered(svg: str, title: str, shown: int, number: int) -> str:
    if not svg:
        return paragraph(f"{title} Of no volume are they known.")
    left = f" Of {number - shown:,} more they are not known." if shown < number else ""
    return figure(svg, title, f"{count(shown, 'volume')}; a larger dot stands for more.{left}")


def labels(facts: Facts) -> str:
    """Return how many volumes have each label."""
    volumes = facts.volumes
    if not volumes.labelled:
        return paragraph("No converted volume has labels." if volumes.number else NOTHING)
    chart = volume_charts.labels(volumes.labels, volumes.labelled)
    title = f"Positive among {count(volumes.labelled, 'converted volume')}."
    return charts([figure(chart, title, "Beside each bar: the number of volumes.")])


def gallery(facts: Facts) -> str:
    """Return the pictures."""
    if not facts.looks:
        return paragraph("No volume can be shown." if facts.volumes.number else NOTHING)
    pictures = "\n".join(picture_of(look) for look in facts.looks)
    told = "Read from their shards for this page, spread evenly over the dataset."
    return paragraph(told, "muted") + f'<div class="gallery">{pictures}</div>'


def counted(title: str, name: str, counts: Counter[str]) -> str:
    """Return a table of counts, the most frequent first."""
    shown = [(what, f"{number:,}") for what, number in counts.most_common(NAMED)]
    return table(title + first(len(counts)), (name, ">volumes"), shown)


def first(number: int) -> str:
    """Return the words that end the title of a table which does not show all."""
    return f", the first {NAMED} of {number:,}" if number > NAMED else ""
