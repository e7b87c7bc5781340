from urlrl.cli import main

main()
