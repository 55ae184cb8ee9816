//! "Did you mean": the candidate that is fewest slips of the keyboard away.

/// The one of `candidates` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = if word.chars().count() < 5 { 1 } else { 2 };
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(slips, candidate)| *slips <= bound && !other_number(word, candidate))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Whether just the numbers differ: who writes `http2` does not mean `http1`.
fn other_number(word: &str, candidate: &str) -> bool {
    let split = |text: &str| -> (String, String) { text.to_lowercase().chars().partition(char::is_ascii_digit) };
    let ((left, words), (right, candidates)) = (split(word), split(candidate));
    words == candidates && left != right && !left.is_empty() && !right.is_empty()
}

/// `Did you mean X? `, or nothing.
pub(super) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |name| format!("Did you mean `{name}`? "))
}

/// Letters to insert, drop or replace, and neighbours to swap (the restricted Damerau-Levenshtein distance).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut last_left = None;
    for (row, from) in left.chars().enumerate() {
        let mut line = vec![row + 1];
        let mut last_right = None;
        for (column, &to) in right.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&above, column + 1) + 1)
                .min(at(&line, column) + 1)
                .min(at(&above, column) + usize::from(from != to));
            if last_left == Some(to) && last_right == Some(from) && column > 0 {
                best = best.min(at(&before, column - 1) + 1);
            }
            line.push(best);
            last_right = Some(to);
        }
        last_left = Some(from);
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or(0)
}
