//! Tables in Markdown, which are read as they are.

/// A table whose columns are as wide as their widest cell.
pub(super) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]).chain([&head[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let rows = rows.iter().map(|row| line(row));
    line(head) + &line(&rule) + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let head = ["a".to_owned(), "kernel".to_owned()];
        let rows = [vec!["–––".to_owned(), "6.1".to_owned()]];
        let expected = "| a   | kernel |\n| --- | ------ |\n| ––– | 6.1    |\n";
        assert_eq!(table(&head, &rows), expected);
    }
}
