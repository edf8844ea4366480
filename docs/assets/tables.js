// A click on the head of a column sorts its table, as mkdocs-material's documentation has it.
document$.subscribe(() => {
  for (const table of document.querySelectorAll("article table:not([class])")) new Tablesort(table);
});
