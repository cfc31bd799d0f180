-- Schema 0009 made a column that is computed from the rows of before: nothing to add.
SELECT 1;
