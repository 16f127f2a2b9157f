//! How figures change with a size: a table, and a plot of some of its columns.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// The size of a plot, in pixels.
const SIZE: (u32, u32) = (760, 420);

/// One for each line.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x94, 0x67, 0xbd),
];

/// What is measured at each size.
#[derive(Clone, Debug)]
pub(super) struct Column {
    name: String,
    unit: &'static str,
    is_plotted: bool,
}

impl Column {
    /// A line of the plot; all lines have one unit.
    pub(super) fn plotted(name: &str, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            is_plotted: true,
        }
    }

    /// In the table alone.
    pub(super) fn told(name: &str, unit: &'static str) -> Self {
        Self {
            is_plotted: false,
            ..Self::plotted(name, unit)
        }
    }
}

/// The figures of one size, one for each column; none where there is none.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) x: f64,
    pub(super) values: Vec<Option<f64>>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Study {
    /// What its plot's file is called.
    pub(super) name: &'static str,
    /// What grows.
    pub(super) x: &'static str,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

impl Study {
    /// Markdown.
    pub(super) fn table(&self) -> String {
        let names = self.columns.iter();
        let names = names.map(|column| format!(" {}, {} |", column.name, column.unit));
        let mut lines = vec![
            format!("| {} |{}", self.x, names.collect::<String>()),
            format!("|---|{}", "---|".repeat(self.columns.len())),
        ];
        for row in &self.rows {
            let values = row.values.iter().map(|value| {
                value.map_or(" – |".to_owned(), |value| format!(" {} |", digits(value)))
            });
            lines.push(format!("| {} |{}", row.x, values.collect::<String>()));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// The lines that are plotted: name and points.
    fn lines(&self) -> Vec<(&str, Vec<(f64, f64)>)> {
        let plotted = self.columns.iter().enumerate();
        let plotted = plotted.filter(|(_, column)| column.is_plotted);
        let line = |place: usize| {
            let points = self
                .rows
                .iter()
                .filter_map(move |row| Some((row.x, (*row.values.get(place)?)?)));
            // On an axis of logarithms there is no place for nothing.
            points.filter(|(_, y)| *y > 0.0).collect()
        };
        plotted
            .map(|(place, column)| (column.name.as_str(), line(place)))
            .collect()
    }

    /// SVG, both axes logarithmic.
    pub(super) fn plot(&self) -> Result<String> {
        let lines = self.lines();
        let points = || lines.iter().flat_map(|(_, points)| points);
        let (xs, ys) = (
            bounds(points().map(|(x, _)| *x)),
            bounds(points().map(|(_, y)| *y)),
        );
        let unit = self.columns.first().map_or("", |column| column.unit);
        let mut svg = String::new();
        self.draw(&mut svg, &lines, xs, ys, unit)
            .map_err(|error| anyhow!("could not draw {}: {error}", self.name))?;
        Ok(svg)
    }

    fn draw(
        &self,
        svg: &mut String,
        lines: &[(&str, Vec<(f64, f64)>)],
        xs: Range<f64>,
        ys: Range<f64>,
        unit: &str,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            // Numbers of a million would touch each other.
            .x_labels(4)
            .y_labels(6)
            .y_desc(unit)
            .x_label_formatter(&|x| digits(*x))
            .y_label_formatter(&|y| digits(*y))
            .label_style(("sans-serif", 14))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(
                    points.iter().copied(),
                    colour.stroke_width(2),
                ))?
                .label(*name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            let dots = points
                .iter()
                .map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 14))
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// From a little below the least to a little above the greatest.
fn bounds(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, greatest) = values.fold((f64::INFINITY, 0.0_f64), |(least, greatest), value| {
        (least.min(value), greatest.max(value))
    });
    if least > greatest {
        return 1.0..10.0;
    }
    least / 1.5..greatest * 1.5
}

/// Three digits that count, and all those before the point.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 0.1 => 3,
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> Study {
        let row = |x, values: [Option<f64>; 3]| Row {
            x,
            values: values.to_vec(),
        };
        Study {
            name: "sockets",
            x: "sockets",
            columns: vec![
                Column::plotted("census", "ms"),
                Column::plotted("ss", "ms"),
                Column::told("resident", "MiB"),
            ],
            rows: vec![
                row(1000.0, [Some(1.234), Some(10.0), Some(15.0)]),
                row(10_000.0, [Some(12.0), None, Some(0.0)]),
            ],
        }
    }

    #[test]
    fn a_table_has_every_figure_or_says_there_is_none() {
        assert_eq!(
            study().table(),
            "| sockets | census, ms | ss, ms | resident, MiB |\n|---|---|---|---|\n\
             | 1000 | 1.23 | 10 | 15 |\n| 10000 | 12 | – | 0 |\n"
        );
    }

    #[test]
    fn a_plot_has_the_plotted_lines_and_their_points() -> Result<()> {
        let svg = study().plot()?;
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        assert!(svg.contains("census") && svg.contains("ss"), "{svg}");
        assert!(!svg.contains("resident"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        Ok(())
    }

    #[test]
    fn nothing_measured_is_an_empty_plot() -> Result<()> {
        let empty = Study {
            rows: Vec::new(),
            ..study()
        };
        assert!(!empty.plot()?.contains("<circle"));
        Ok(())
    }
}
