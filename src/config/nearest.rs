//! The nearest known word to a misspelt one.

/// `; did you mean "x"?`, or nothing if no known word is near.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

/// The known word that takes the fewest edits, if they are no more than a third of the letters (at least two: `typ`).
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(LONGEST).map(plain).collect();
    let best = known.into_iter().map(|k| (distance(&word, &k.chars().map(plain).collect::<String>()), k)).min()?;
    (best.0 <= (word.chars().count() / 3).max(2) && best.0 < word.chars().count().max(2)).then_some(best.1)
}

/// Keys are short; a longer word is no misspelling, and the table stays small.
const LONGEST: usize = 64;

fn plain(c: char) -> char {
    if c == '-' { '_' } else { c.to_ascii_lowercase() }
}

/// Edits between two words: insert, delete, replace, or swap two neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            // All three rows have b.len() + 1 cells, and j + 1 <= b.len().
            let mut least = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["listen", "token", "allow_anonymous", "body_max_bytes"];
        for (word, want) in [
            ("lisen", Some("listen")),
            ("tokne", Some("token")),
            ("allow-anonymous", Some("allow_anonymous")),
            ("Listen", Some("listen")),
            ("body_bytes", None),
            ("x", None),
            ("completely_else", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
    }
}
