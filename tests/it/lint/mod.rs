//! `appreg lint`: the same answers as an API server and the operator, without either.

mod rules;
