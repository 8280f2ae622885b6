"""Language models that ship with the workbench, their training, and what a text costs them."""
